// Is Adam's compiled step bound by memory or by arithmetic? In one thread:
//
//   c++ -O3 -std=c++17 -fno-math-errno -fno-trapping-math -isystem \
//     "$(python -c 'import jax; print(jax.ffi.include_dir())')" \
//     benchmarks/roofline.cc -o roofline && ./roofline
//
// Nanoseconds an element of the loops of step.cc, by instruction set: on blocks that stay
// in the first-level cache, and in float32 on a leaf of ten million, which does not.

#include "../optjax/fused/step.cc"

#include <ctime>
#include <cstdio>

namespace {

constexpr int64_t kLarge = 10'000'000;

double Seconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// The least of seven times, nanoseconds an element.
template <typename Function>
double Time(int64_t elements, int64_t repeats, Function run) {
  double least = 1e9;
  for (int k = 0; k < 7; ++k) {
    const double start = Seconds();
    for (int64_t i = 0; i < repeats; ++i) run();
    least = std::min(least, Seconds() - start);
  }
  return 1e9 * least / static_cast<double>(elements * repeats);
}

void Measure(const char* name, const Loops& loops) {
  constexpr int32_t kAdam =
      FormIndex(direction::average, accumulator::average, bounded::no, false, false, kExact);
  Coefficients c{};
  c.intake = 0.1f, c.keep = 0.9f, c.out = 1.0f;
  c.square_intake = 0.001f, c.square_keep = 0.999f, c.before = 1.0f;
  c.eps = 1e-8f, c.step = 1e-3f;
  std::vector<float> g(kLarge), p(kLarge, 1.0f), m(kLarge), nu(kLarge);
  for (int64_t i = 0; i < kLarge; ++i) {
    g[i] = static_cast<float>(i * 7919 % 1000 - 500) / 500.0f;
    m[i] = 0.1f * g[i];
    nu[i] = g[i] * g[i];
  }
  Block block{};
  block.in[array::grads] = g.data();
  block.in[array::params] = block.out[array::params] = p.data();
  block.in[array::m] = block.out[array::m] = m.data();
  block.in[array::nu] = block.out[array::nu] = nu.data();
  const auto adam = [&](int64_t n) { loops.update[kAdam](c, block, n); };
  const double from_memory = Time(kLarge, 1, [&] { adam(kLarge); });
  const double in_cache = Time(kBlock, 2000, [&] { adam(kBlock); });

  Block noisy = block;
  noisy.key = {12345, 777};
  std::vector<uint16_t> narrow_m(kBlock, 0x3f80), narrow_nu(kBlock, 0x3f80);
  noisy.in[array::m] = noisy.out[array::m] = reinterpret_cast<float*>(narrow_m.data());
  noisy.in[array::nu] = noisy.out[array::nu] = reinterpret_cast<float*>(narrow_nu.data());
  const double rounded = Time(
      kBlock, 2000, [&] { loops.update[kAdam + kStochastic](c, noisy, kBlock); });

  std::vector<int8_t> codes_m(kBlock);
  std::vector<uint8_t> codes_nu(kBlock);
  float scales[2 * kBlock / kCodes];
  const auto write = [&] {
    loops.write_signed(m.data(), 5, noisy.key, codes_m.data(), scales, kBlock);
    loops.write_rooted(nu.data(), 5, noisy.key, codes_nu.data(), scales + 2, kBlock);
  };
  const auto read = [&] {
    loops.read_signed(codes_m.data(), scales, p.data(), kBlock);
    loops.read_rooted(codes_nu.data(), scales + 2, p.data(), kBlock);
  };
  const double written = Time(kBlock, 2000, write);
  const double coded = in_cache + written + Time(kBlock, 2000, read);
  std::printf("| %s | %.2f | %.2f | %.2f | %.2f | %.2f |\n", name, from_memory, in_cache,
              rounded, coded, written);
}

}  // namespace

int main() {
  std::printf(
      "| instruction set | float32 from memory | float32 | bfloat16, stochastic "
      "| eight bits | of which encoding |\n|---|---|---|---|---|---|\n");
  Measure("SSE2", kPlain);
#ifdef OPTJAX_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2")) Measure("AVX2", kAvx2);
  if (__builtin_cpu_supports("avx512bw")) Measure("AVX-512", kAvx512);
#endif
}
