// The basic form, x[t+1] = x[t] - s_t V_t m_t, for many arrays in one pass over memory.
//
// Each element of each leaf is read once (gradient, parameter and the optimizer's
// state) and written once, in place where XLA has given input and output one buffer.
// XLA itself emits one loop an output on the CPU and reads every input in each.
//
// What differs between the optimizers of the family is either a template argument,
// so that no loop has a branch, or one of the run-time `Coefficients`:
//
//   g   <- g + l2 p                                          if l2
//   m   <- intake g + keep m,   d = out m [+ ahead g]        or d = g
//   nu  <- square_intake g^2 + square_keep nu,               or V = 1
//   top <- max(top, nu before)                               if the accumulator is max
//   V   = 1 / max(sqrt(nu before + eps_root) + eps, floor)   (top after for nu before)
//   V   <- clip(scale V, lower, upper)                       if bounded
//   ||V d||^2, ||d||^2, of V before the clip                 if a leaf has bounds of its own
//   p   <- p - (step V d [+ decay p])
//
// Arithmetic is float32. bfloat16 arrays are widened and rounded in blocks that stay
// in the first-level cache, so that there is one set of loops for every mix of dtypes.
//
// A state in bfloat16 may be rounded stochastically: up with the probability of the
// distance covered. The noise is that of _rounding.py, to the bit, and so are m and nu.
// Or it is codes of eight bits, read and made anew in blocks that have a scale each, as in
// _compression.py.

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "xla/ffi/api/ffi.h"

#if defined(__clang__)
#define OPTJAX_VECTORIZE _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define OPTJAX_VECTORIZE _Pragma("GCC ivdep")
#else
#define OPTJAX_VECTORIZE
#endif

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define OPTJAX_X86 1
#endif

#define OPTJAX_INLINE __attribute__((always_inline)) inline

namespace {

namespace ffi = xla::ffi;

// The lists of which the names and the order are those of _kernel.py: of each both the
// constants below and the text that _library.py compares are made.
#define OPTJAX_COEFFICIENTS(X)                                                       \
  X(intake) X(keep) X(out) X(ahead) X(square_intake) X(square_keep) X(before) X(after) \
  X(eps_root) X(eps) X(scale) X(lower) X(upper) X(step) X(decay) X(l2)
#define OPTJAX_ARRAYS(X) X(grads) X(params) X(m) X(nu) X(nu_max) \
  X(m_scale) X(nu_scale) X(nu_max_scale) X(norms)
#define OPTJAX_DIRECTIONS(X) X(gradient) X(average) X(ahead)
#define OPTJAX_ACCUMULATORS(X) X(one) X(average) X(max)
#define OPTJAX_BOUNDED(X) X(no) X(shared) X(own)
#define OPTJAX_STORAGES(X) X(nearest) X(stochastic) X(compressed)

#define OPTJAX_FLOAT(name) float name;
#define OPTJAX_ITEM(name) name,
#define OPTJAX_WORD(name) " " #name

// Whether a b + c is rounded once. XLA does so where it can; a state that is to be equal to
// its own must do it at the same places.
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
constexpr bool kPlainFuses = true;
#else
constexpr bool kPlainFuses = false;
#endif

template <bool kFuses>
OPTJAX_INLINE float MultiplyAdd(float a, float b, float c) {
  if constexpr (kFuses) {
    return __builtin_fmaf(a, b, c);
  } else {
    return a * b + c;
  }
}

struct Coefficients {
  OPTJAX_COEFFICIENTS(OPTJAX_FLOAT)
};
constexpr int64_t kCoefficients = sizeof(Coefficients) / sizeof(float);

// The square root of the smallest normal number: V and dV/dnu stay finite.
constexpr float kFloor = 1.08420217e-19f;

// Elements a block: what is widened stays in the first-level cache until it is rounded.
constexpr int64_t kBlock = 256;

// Codes that share a scale, of which a block has a whole number.
constexpr int64_t kCodes = 128;

// Elements below which waking another thread costs more than it saves, and the most
// that one thread takes at a time.
constexpr int64_t kSmallestChunk = 8 * 1024;
constexpr int64_t kLargestChunk = 64 * 1024;

// How many chunks are made where these limits let it.
constexpr int64_t kChunks = 64;

namespace direction {
enum : int32_t { OPTJAX_DIRECTIONS(OPTJAX_ITEM) kCount };
}
namespace accumulator {
enum : int32_t { OPTJAX_ACCUMULATORS(OPTJAX_ITEM) kCount };
}
namespace bounded {
enum : int32_t { OPTJAX_BOUNDED(OPTJAX_ITEM) kCount };
}
// How an array of the state that is narrower than float32 comes to be so.
namespace storage {
enum : int32_t { OPTJAX_STORAGES(OPTJAX_ITEM) kCount };
}

// The arrays of one leaf, also the order of the operands.
namespace array {
enum : int32_t { OPTJAX_ARRAYS(OPTJAX_ITEM) kCount };
// Those that an element is made of.
constexpr int32_t kNumbers = m_scale;
}

constexpr int32_t kForms =
    direction::kCount * accumulator::kCount * bounded::kCount * 16;

// How the loop finds the arrays of the state, and whether it rounds the update.
enum Kind : int32_t { kExact = 0, kRounded = 1, kStochastic = 2 };

constexpr int32_t FormIndex(int32_t d, int32_t a, int32_t b, bool decay, bool l2,
                            Kind kind) {
  return ((((d * accumulator::kCount + a) * bounded::kCount + b) * 2 + decay) * 2 + l2) *
             4 +
         kind;
}

template <int32_t kIndex>
struct Form {
  static constexpr bool kRound = kIndex % 4 == kRounded;
  static constexpr bool kNoisy = kIndex % 4 == kStochastic;
  static constexpr bool kL2 = kIndex / 4 % 2;
  static constexpr bool kDecay = kIndex / 8 % 2;
  static constexpr int32_t kBounded = kIndex / 16 % bounded::kCount;
  static constexpr int32_t kAccumulator =
      kIndex / 16 / bounded::kCount % accumulator::kCount;
  static constexpr int32_t kDirection =
      kIndex / 16 / bounded::kCount / accumulator::kCount;
  static constexpr bool kKeeps =
      kAccumulator != accumulator::one || kDirection != direction::gradient;
  static constexpr bool kExists = (kAccumulator != accumulator::one || kBounded == bounded::no) &&
                                  (kKeeps || !kNoisy) && kIndex % 4 != 3;
};

OPTJAX_INLINE float FromBits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

OPTJAX_INLINE uint32_t ToBits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

// The upper half of the float32 nearest to `value`, ties to even; NaN stays NaN.
OPTJAX_INLINE uint32_t Bfloat16Bits(float value) {
  const uint32_t bits = ToBits(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return value != value ? (bits >> 16) | 0x40u : rounded;
}

OPTJAX_INLINE float RoundToBfloat16(float value) {
  return FromBits(Bfloat16Bits(value) << 16);
}

// max(a, b), NaN where either is.
OPTJAX_INLINE float Maximum(float a, float b) {
  const float larger = a > b ? a : b;
  return a != a ? a : larger;
}

// The two words that a step's noise is a hash of, beside a number and its position.
struct Key {
  uint32_t first;
  uint32_t second;
};

// The noise of _rounding.py at one position after another. What all arrays of a leaf share
// is worked out once: a number goes in by its upper 16 bits, which the hash's first shift
// drops, and position * kGolden grows by a sum.
class Noise {
 public:
  OPTJAX_INLINE Noise(Key key, uint32_t position)
      : product_((position + key.first) * kGolden), second_(key.second) {}

  OPTJAX_INLINE uint32_t Next() {
    const uint32_t word = product_ ^ second_;
    product_ += kGolden;
    return word ^ (word >> 16);
  }

  // Of which the upper bits depend on all.
  static OPTJAX_INLINE uint32_t Hash(uint32_t noise, float number) {
    uint32_t h = (noise ^ (ToBits(number) >> 16)) * 0x7feb352du;
    return (h ^ (h >> 15)) * 0x846ca68bu;
  }

 private:
  static constexpr uint32_t kGolden = 0x9e3779b1u;

  uint32_t product_;
  uint32_t second_;
};

OPTJAX_INLINE float Widen(uint16_t bits) {
  return FromBits(static_cast<uint32_t>(bits) << 16);
}

// bfloat16 by the carry out of the 16 bits that it lacks, which has the probability that
// is wanted; what ends above its largest finite number goes to the nearest. Infinity and
// NaN have no carry: a NaN that arithmetic returns has its mark in the bits that stay.
OPTJAX_INLINE uint16_t RoundStochastically(float value, uint32_t noise) {
  const uint32_t word = ToBits(value);
  const uint32_t magnitude = word & 0x7fffffffu;
  const uint32_t nearest = magnitude < 0x7f800000u ? 0x8000u : 0u;
  const uint32_t hash = Noise::Hash(noise, value) >> 16;
  const uint32_t carry = magnitude < 0x7f7f0000u ? hash : nearest;
  return static_cast<uint16_t>((word + carry) >> 16);
}

// The arrays are float, but for those of a state in bfloat16 in the loops that round it.
struct Block {
  const float* in[array::kNumbers];
  float* out[array::kNumbers];
  // Where V d and d go that are measured.
  float* free_step = nullptr;
  float* direction = nullptr;
  uint32_t position = 0;
  Key key = {0, 0};
};

template <bool kNoisy>
OPTJAX_INLINE float Read(const float* array, int64_t i) {
  if constexpr (kNoisy) {
    return Widen(reinterpret_cast<const uint16_t*>(array)[i]);
  } else {
    return array[i];
  }
}

template <bool kNoisy>
OPTJAX_INLINE void Write(float* array, int64_t i, float value, uint32_t noise) {
  if constexpr (kNoisy) {
    reinterpret_cast<uint16_t*>(array)[i] = RoundStochastically(value, noise);
  } else {
    array[i] = value;
  }
}

// Inputs and outputs may be the same arrays, never overlapping ones. Where it cannot be a
// sum, m is an average, and nu.
template <int32_t kIndex, bool kFuses, bool kMaySum>
OPTJAX_INLINE void UpdateLoop(const Coefficients& coefficients, const Block& block,
                              int64_t n) {
  using F = Form<kIndex>;
  const Coefficients c = coefficients;
  const float* g_in = block.in[array::grads];
  const float* p_in = block.in[array::params];
  const float* m_in = block.in[array::m];
  const float* nu_in = block.in[array::nu];
  const float* nu_max_in = block.in[array::nu_max];
  float* p_out = block.out[array::params];
  float* m_out = block.out[array::m];
  float* nu_out = block.out[array::nu];
  float* nu_max_out = block.out[array::nu_max];
  float* free_step_out = block.free_step;
  float* direction_out = block.direction;
  Noise noises(block.key, block.position);
  // As numbers: compilers vectorise no choice by a truth value from outside of a loop.
  const float sums_m = c.intake == 1.0f ? 1.0f : 0.0f;
  const float sums_nu =
      c.square_intake == 1.0f && c.square_keep == 1.0f ? 1.0f : 0.0f;
  OPTJAX_VECTORIZE
  for (int64_t i = 0; i < n; ++i) {
    const float p = p_in[i];
    float g = g_in[i];
    const uint32_t noise = F::kNoisy ? noises.Next() : 0;
    if constexpr (F::kL2) {
      if constexpr (F::kRound) {
        // As bfloat16 arithmetic has it: lambda, the product and the sum are rounded.
        g = RoundToBfloat16(g + RoundToBfloat16(RoundToBfloat16(c.l2) * p));
      } else {
        g += c.l2 * p;
      }
    }

    float d = g;
    if constexpr (F::kDirection != direction::gradient) {
      // In a sum nothing but the product is rounded, as XLA has it.
      const float before = Read<F::kNoisy>(m_in, i);
      const float m = kMaySum && sums_m > 0.0f
                          ? MultiplyAdd<kFuses>(c.keep, before, g)
                          : MultiplyAdd<kFuses>(c.intake, g, c.keep * before);
      Write<F::kNoisy>(m_out, i, m, noise);
      d = c.out * m;
      if constexpr (F::kDirection == direction::ahead) d += c.ahead * g;
      if constexpr (F::kRound) d = RoundToBfloat16(d);
    }

    if constexpr (F::kAccumulator != accumulator::one) {
      const float before = Read<F::kNoisy>(nu_in, i);
      float nu =
          kMaySum && sums_nu > 0.0f
              ? MultiplyAdd<kFuses>(g, g, before)
              : MultiplyAdd<kFuses>(c.square_intake, g * g, c.square_keep * before);
      Write<F::kNoisy>(nu_out, i, nu, noise);
      nu *= c.before;
      if constexpr (F::kAccumulator == accumulator::max) {
        nu = Maximum(nu, Read<F::kNoisy>(nu_max_in, i));
        Write<F::kNoisy>(nu_max_out, i, nu, noise);
        nu *= c.after;
      }
      const float root = __builtin_sqrtf(nu + c.eps_root) + c.eps;
      float v = 1.0f / (root < kFloor ? kFloor : root);
      if constexpr (F::kBounded != bounded::no) {
        v *= c.scale;
        if constexpr (F::kBounded == bounded::own) {
          free_step_out[i] = v * d;
          direction_out[i] = d;
        }
        v = v < c.lower ? c.lower : v;
        v = v > c.upper ? c.upper : v;
      }
      d *= v;
    }

    float u = c.step * d;
    if constexpr (F::kDecay) u += c.decay * p;
    if constexpr (F::kRound) u = RoundToBfloat16(u);
    p_out[i] = p - u;
  }
}

template <int32_t kIndex, bool kFuses>
OPTJAX_INLINE void UpdateBody(const Coefficients& c, const Block& block, int64_t n) {
  // Where it rounds, the loop is bound by its arithmetic and spares the choice; not for
  // the oldest processors too, or it would compile for longer.
  constexpr bool kSpares = Form<kIndex>::kNoisy && kFuses;
  if (!kSpares || c.intake == 1.0f || c.square_intake == 1.0f) {
    UpdateLoop<kIndex, kFuses, true>(c, block, n);
  } else if constexpr (kSpares) {
    UpdateLoop<kIndex, kFuses, false>(c, block, n);
  }
}

OPTJAX_INLINE void WidenBody(const uint16_t* in, float* out, int64_t n) {
  OPTJAX_VECTORIZE
  for (int64_t i = 0; i < n; ++i) out[i] = Widen(in[i]);
}

OPTJAX_INLINE void NarrowBody(const float* in, uint16_t* out, int64_t n) {
  OPTJAX_VECTORIZE
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<uint16_t>(Bfloat16Bits(in[i]));
}

// The sum of squares, added up in one order whatever the instruction set.
OPTJAX_INLINE float SquaresBody(const float* x, int64_t n) {
  constexpr int64_t kLanes = 32;
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    OPTJAX_VECTORIZE
    for (int64_t j = 0; j < kLanes; ++j) lanes[j] += x[i + j] * x[i + j];
  }
  for (int64_t j = 0; i + j < n; ++j) lanes[j] += x[i + j] * x[i + j];
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t j = 0; j < half; ++j) lanes[j] += lanes[j + half];
  }
  return lanes[0];
}

// What the codes of a block of n stand for: a number, or for unsigned ones its square.
template <typename Code>
OPTJAX_INLINE void DecodeCodes(const Code* in, float scale, float* out, int64_t n) {
  OPTJAX_VECTORIZE
  for (int64_t i = 0; i < n; ++i) {
    const int32_t q = in[i];
    const float y = static_cast<float>(q * (q < 0 ? -q : q)) * scale;
    out[i] = std::is_signed_v<Code> ? y : y * y;
  }
}

template <typename Code>
constexpr int32_t kMost = std::is_signed_v<Code> ? 127 : 255;

OPTJAX_INLINE float Absolute(float value) {
  return FromBits(ToBits(value) & 0x7fffffffu);
}

// What codes are made of: a number's magnitude, or its root where there are no signs.
template <typename Code>
OPTJAX_INLINE float Companded(float value) {
  return std::is_signed_v<Code> ? Absolute(value) : __builtin_sqrtf(value);
}

// The scale that the largest magnitude asks for, which is found among words: that of floats
// is not found in any order where there is NaN.
template <typename Code>
OPTJAX_INLINE float ScaleOfCodes(const float* in, int64_t n) {
  uint32_t largest = 0;
  OPTJAX_VECTORIZE
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t word = ToBits(std::is_signed_v<Code> ? Absolute(in[i]) : in[i]);
    largest = largest > word ? largest : word;
  }
  const float most = Companded<Code>(FromBits(largest));
  if (!(most < __builtin_inff())) return __builtin_nanf("");
  const float scale = most * static_cast<float>(1.0 / (kMost<Code> * kMost<Code>));
  return scale < 1.17549435e-38f ? 0.0f : scale;
}

template <typename Code>
OPTJAX_INLINE void EncodeCodes(const float* in, float scale, uint32_t position, Key key,
                               Code* out, int64_t n) {
  const float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
  Noise noises(key, position);
  OPTJAX_VECTORIZE
  for (int64_t i = 0; i < n; ++i) {
    const float z = Companded<Code>(in[i]) * inverse;
    const int32_t below = static_cast<int32_t>(__builtin_sqrtf(z));
    const float level = static_cast<float>(below);
    const uint32_t hash = Noise::Hash(noises.Next(), in[i]) >> 8;
    // Of 2^24, as the distance to the next square is.
    const float chance = static_cast<float>(static_cast<int32_t>(hash));
    const float gap = 0x1p-23f * level + 0x1p-24f;
    int32_t q = below + (chance * gap < z - level * level ? 1 : 0);
    if constexpr (!std::is_signed_v<Code>) q = (z > 0.0f && q < 1) ? 1 : q;
    q = q > kMost<Code> ? kMost<Code> : q;
    if constexpr (std::is_signed_v<Code>) q = in[i] < 0.0f ? -q : q;
    out[i] = static_cast<Code>(q);
  }
}

// n <= kBlock codes, of which every kCodes have a scale.
template <typename Code>
OPTJAX_INLINE void DecodeBody(const Code* in, const float* scales, float* out, int64_t n) {
  for (int64_t i = 0; i < n; i += kCodes) {
    DecodeCodes(in + i, scales[i / kCodes], out + i, std::min(kCodes, n - i));
  }
}

template <typename Code>
OPTJAX_INLINE void EncodeBody(const float* in, uint32_t position, Key key, Code* out,
                              float* scales, int64_t n) {
  // All scales first: what waits for the one need not wait for the other.
  for (int64_t i = 0; i < n; i += kCodes) {
    const int64_t count = std::min(kCodes, n - i);
    scales[i / kCodes] = ScaleOfCodes<Code>(in + i, count);
  }
  for (int64_t i = 0; i < n; i += kCodes) {
    const int64_t count = std::min(kCodes, n - i);
    const float scale = scales[i / kCodes];
    const uint32_t at = position + static_cast<uint32_t>(i);
    if (scale != scale) {
      std::memset(out + i, 0, count);
    } else {
      EncodeCodes(in + i, scale, at, key, out + i, count);
    }
  }
}

using UpdateFunction = void (*)(const Coefficients&, const Block&, int64_t);

// The loops as compiled for one instruction set.
struct Loops {
  void (*widen)(const uint16_t*, float*, int64_t);
  void (*narrow)(const float*, uint16_t*, int64_t);
  float (*squares)(const float*, int64_t);
  void (*read_signed)(const int8_t*, const float*, float*, int64_t);
  void (*read_rooted)(const uint8_t*, const float*, float*, int64_t);
  void (*write_signed)(const float*, uint32_t, Key, int8_t*, float*, int64_t);
  void (*write_rooted)(const float*, uint32_t, Key, uint8_t*, float*, int64_t);
  std::array<UpdateFunction, kForms> update;
};

#define OPTJAX_LOOPS(NAME, FUSES, ATTRIBUTE)                                        \
  template <int32_t kIndex>                                                         \
  ATTRIBUTE void Update##NAME(const Coefficients& c, const Block& block, int64_t n) {\
    UpdateBody<kIndex, FUSES>(c, block, n);                                         \
  }                                                                                 \
  ATTRIBUTE void Widen##NAME(const uint16_t* in, float* out, int64_t n) {           \
    WidenBody(in, out, n);                                                          \
  }                                                                                 \
  ATTRIBUTE void Narrow##NAME(const float* in, uint16_t* out, int64_t n) {          \
    NarrowBody(in, out, n);                                                         \
  }                                                                                 \
  ATTRIBUTE float Squares##NAME(const float* x, int64_t n) {                        \
    return SquaresBody(x, n);                                                       \
  }                                                                                 \
  ATTRIBUTE void ReadSigned##NAME(const int8_t* in, const float* scales, float* out,\
                                  int64_t n) {                                      \
    DecodeBody(in, scales, out, n);                                                 \
  }                                                                                 \
  ATTRIBUTE void ReadRooted##NAME(const uint8_t* in, const float* scales, float* out,\
                                  int64_t n) {                                      \
    DecodeBody(in, scales, out, n);                                                 \
  }                                                                                 \
  ATTRIBUTE void WriteSigned##NAME(const float* in, uint32_t at, Key key,           \
                                   int8_t* out, float* scale, int64_t n) {          \
    EncodeBody(in, at, key, out, scale, n);                                         \
  }                                                                                 \
  ATTRIBUTE void WriteRooted##NAME(const float* in, uint32_t at, Key key,           \
                                   uint8_t* out, float* scale, int64_t n) {         \
    EncodeBody(in, at, key, out, scale, n);                                         \
  }                                                                                 \
  template <int32_t kIndex>                                                         \
  constexpr UpdateFunction Pick##NAME() {                                           \
    if constexpr (Form<kIndex>::kExists) {                                          \
      return &Update##NAME<kIndex>;                                                 \
    } else {                                                                        \
      return nullptr;                                                               \
    }                                                                               \
  }                                                                                 \
  template <int32_t... kIndices>                                                    \
  constexpr Loops Make##NAME(std::integer_sequence<int32_t, kIndices...>) {         \
    return {&Widen##NAME,       &Narrow##NAME,     &Squares##NAME,                  \
            &ReadSigned##NAME,  &ReadRooted##NAME, &WriteSigned##NAME,              \
            &WriteRooted##NAME, {Pick##NAME<kIndices>()...}};                       \
  }                                                                                 \
  constexpr Loops k##NAME =                                                         \
      Make##NAME(std::make_integer_sequence<int32_t, kForms>());

OPTJAX_LOOPS(Plain, kPlainFuses, )
#ifdef OPTJAX_X86
OPTJAX_LOOPS(Avx2, true, __attribute__((target("avx2,fma"))))
OPTJAX_LOOPS(Avx512, true, __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl"))))
#endif

const Loops& LoopsOfThisMachine() {
#ifdef OPTJAX_X86
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return kAvx512;
  }
  if (avx2) return kAvx2;
#endif
  return kPlain;
}

// One array of one leaf.
struct Buffer {
  const char* in = nullptr;
  char* out = nullptr;
  bool bfloat16 = false;
  // How many elements of other leaves are between a row and the next where the array is
  // that of all leaves.
  int64_t others = 0;

  int64_t Place(int64_t row, int64_t at) const { return at + row * others; }
};

struct Leaf {
  std::array<Buffer, array::kCount> arrays;
  // How many elements share a row of coefficients, how far apart rows begin in the
  // concatenation of all leaves, and where the leaf begins there.
  int64_t row;
  int64_t stride;
  int64_t begin;
  // Where its partial sums begin, and how many a row has.
  int64_t sums = 0;
  int64_t sums_of_row = 0;
};

// Partial sums of (V d)^2 and d^2.
struct Sums {
  double free_step = 0.0;
  double direction = 0.0;
};

// The work of one call. Threads that are scheduled but start only after the last chunk
// has been taken still look at it, so it is shared and outlives the call.
class Job {
 public:
  Job(std::vector<Leaf> leaves, int64_t size, int64_t chunk,
      const Coefficients* coefficients, const Key* keys, int32_t form, int32_t stored,
      bool measures)
      : leaves_(std::move(leaves)),
        size_(size),
        chunk_(chunk),
        chunks_((size + chunk - 1) / chunk),
        coefficients_(coefficients),
        keys_(keys),
        loops_(LoopsOfThisMachine()),
        noisy_(stored == storage::stochastic),
        coded_(stored == storage::compressed),
        measures_(measures),
        exact_(loops_.update[form + (noisy_ ? kStochastic : kExact)]),
        rounded_(loops_.update[form + kRounded]) {
    if (!measures_) return;
    int64_t sums = 0;
    for (Leaf& leaf : leaves_) {
      leaf.sums = sums;
      leaf.sums_of_row = (leaf.stride + chunk_ - 2) / chunk_ + 1;
      sums += (End(leaf) - leaf.begin) / leaf.stride * leaf.sums_of_row;
    }
    sums_.resize(sums);
  }

  int64_t chunks() const { return chunks_; }

  // Takes chunks until none is left.
  void Work() {
    for (;;) {
      const int64_t chunk = next_.fetch_add(1, std::memory_order_relaxed);
      if (chunk >= chunks_) return;
      Range(chunk * chunk_, std::min(size_, (chunk + 1) * chunk_));
      if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 == chunks_) {
        std::lock_guard<std::mutex> lock(mutex_);
        finished_.notify_all();
      }
    }
  }

  // Every chunk not done when the caller gets here is running on some thread, so the
  // wait ends however many threads the pool has and whoever the caller is.
  void Wait() {
    constexpr int kSpins = 4000;
    for (int i = 0; i < kSpins; ++i) {
      if (Done()) return;
#ifdef OPTJAX_X86
      __builtin_ia32_pause();
#endif
    }
    std::unique_lock<std::mutex> lock(mutex_);
    finished_.wait(lock, [this] { return Done(); });
  }

  // Of each row of each leaf the two sums, added up in one order whoever has taken which
  // chunk, in place of its bounds.
  void WriteNorms() const {
    for (const Leaf& leaf : leaves_) {
      auto* out = reinterpret_cast<float*>(leaf.arrays[array::norms].out);
      const auto end = sums_.begin() + leaf.sums + (End(leaf) - leaf.begin) / leaf.stride *
                                                       leaf.sums_of_row;
      for (auto row = sums_.begin() + leaf.sums; row != end; row += leaf.sums_of_row) {
        Sums sums;
        for (auto part = row; part != row + leaf.sums_of_row; ++part) {
          sums.free_step += part->free_step;
          sums.direction += part->direction;
        }
        *out++ = static_cast<float>(sums.free_step);
        *out++ = static_cast<float>(sums.direction);
      }
    }
  }

 private:
  bool Done() const { return done_.load(std::memory_order_acquire) == chunks_; }

  // Where a leaf ends in the concatenation of all.
  int64_t End(const Leaf& leaf) const {
    const Leaf* after = &leaf + 1;
    return after == leaves_.data() + leaves_.size() ? size_ : after->begin;
  }

  // Elements [begin, end) of the concatenated leaves.
  void Range(int64_t begin, int64_t end) {
    auto leaf = std::upper_bound(
        leaves_.begin(), leaves_.end(), begin,
        [](int64_t position, const Leaf& leaf) { return position < leaf.begin; });
    --leaf;
    while (begin < end) {
      const int64_t stop = std::min(end, End(*leaf));
      while (begin < stop) {
        const int64_t at = begin - leaf->begin;
        const int64_t row = at / leaf->stride;
        const int64_t first = at - row * leaf->stride;
        const int64_t n = std::min(stop - begin, leaf->stride - first);
        // What follows the last element of a row fills up its last block of codes.
        const int64_t count = std::min(n, leaf->row - first);
        if (count > 0) {
          const Sums sums = Elements(*leaf, row, row * leaf->row + first, count);
          if (measures_) {
            const int64_t part = begin / chunk_ - (begin - first) / chunk_;
            sums_[leaf->sums + row * leaf->sums_of_row + part] = sums;
          }
        }
        begin += n;
      }
      ++leaf;
    }
  }

  // Elements of one leaf that share their row of coefficients.
  Sums Elements(const Leaf& leaf, int64_t row, int64_t first, int64_t n) {
    Coefficients coefficients = coefficients_[row];
    if (measures_) {
      const auto* bounds = reinterpret_cast<const float*>(leaf.arrays[array::norms].in);
      coefficients.lower = bounds[2 * row];
      coefficients.upper = bounds[2 * row + 1];
    }
    Sums sums;
    const UpdateFunction update = leaf.arrays[array::grads].bfloat16 ? rounded_ : exact_;
    const auto is_scratch = [&](int32_t a) {
      return leaf.arrays[a].bfloat16 && !(noisy_ && a >= array::m);
    };
    const auto is_coded = [&](int32_t a) {
      return coded_ && a >= array::m && leaf.arrays[a].in != nullptr;
    };
    bool any_scratch = coded_ || measures_;
    for (int32_t a = 0; a < array::kNumbers; ++a) any_scratch |= is_scratch(a);
    // Rows of a power of two would fall on the same lines of the cache.
    alignas(64) float scratch[array::kNumbers][kBlock + 32];
    alignas(64) float free_step[kBlock + 32];
    alignas(64) float direction[kBlock + 32];
    const int64_t block_size = any_scratch ? kBlock : n;
    for (int64_t i = 0; i < n; i += block_size) {
      const int64_t count = std::min(block_size, n - i);
      const int64_t at = first + i;
      Block block;
      block.position = static_cast<uint32_t>(at - row * leaf.row);
      block.key = keys_[row];
      block.free_step = free_step;
      block.direction = direction;
      for (int32_t a = 0; a < array::kNumbers; ++a) {
        const Buffer& buffer = leaf.arrays[a];
        if (is_coded(a)) {
          block.in[a] = block.out[a] = scratch[a];
          Decode(leaf, a, row, at, count, scratch[a]);
        } else if (is_scratch(a)) {
          block.in[a] = block.out[a] = scratch[a];
          loops_.widen(reinterpret_cast<const uint16_t*>(buffer.in) + buffer.Place(row, at),
                       scratch[a], count);
        } else {
          const int64_t offset = buffer.Place(row, at) * (buffer.bfloat16 ? 2 : 4);
          block.in[a] = reinterpret_cast<const float*>(buffer.in + offset);
          block.out[a] = reinterpret_cast<float*>(buffer.out + offset);
        }
      }
      update(coefficients, block, count);
      if (measures_) {
        sums.free_step += loops_.squares(free_step, count);
        sums.direction += loops_.squares(direction, count);
      }
      for (int32_t a = array::params; a < array::kNumbers; ++a) {
        const Buffer& buffer = leaf.arrays[a];
        if (is_coded(a)) {
          Encode(leaf, a, row, at, count, scratch[a], block);
        } else if (is_scratch(a)) {
          auto* out = reinterpret_cast<uint16_t*>(buffer.out) + buffer.Place(row, at);
          loops_.narrow(scratch[a], out, count);
        }
      }
    }
    return sums;
  }

  // The place among a leaf's scales of the one for its element `at`.
  static int64_t ScaleOf(const Leaf& leaf, int64_t row, int64_t at) {
    return (row * leaf.stride + at - row * leaf.row) / kCodes;
  }

  void Decode(const Leaf& leaf, int32_t a, int64_t row, int64_t at, int64_t n,
              float* out) const {
    const auto* scales =
        reinterpret_cast<const float*>(leaf.arrays[array::m_scale + a - array::m].in) +
        ScaleOf(leaf, row, at);
    const char* in = leaf.arrays[a].in + at;
    if (a == array::m) {
      loops_.read_signed(reinterpret_cast<const int8_t*>(in), scales, out, n);
    } else {
      loops_.read_rooted(reinterpret_cast<const uint8_t*>(in), scales, out, n);
    }
  }

  void Encode(const Leaf& leaf, int32_t a, int64_t row, int64_t at, int64_t n,
              const float* in, const Block& block) const {
    auto* scales =
        reinterpret_cast<float*>(leaf.arrays[array::m_scale + a - array::m].out) +
        ScaleOf(leaf, row, at);
    char* out = leaf.arrays[a].out + at;
    if (a == array::m) {
      loops_.write_signed(in, block.position, block.key, reinterpret_cast<int8_t*>(out),
                          scales, n);
    } else {
      loops_.write_rooted(in, block.position, block.key, reinterpret_cast<uint8_t*>(out),
                          scales, n);
    }
  }

  std::vector<Leaf> leaves_;
  const int64_t size_;
  const int64_t chunk_;
  const int64_t chunks_;
  const Coefficients* const coefficients_;
  const Key* const keys_;
  const Loops& loops_;
  // Whether the loop itself widens and rounds the state.
  const bool noisy_;
  // Whether the state is codes.
  const bool coded_;
  // Whether each leaf has bounds of its own, and norms are wanted.
  const bool measures_;
  // For leaves with float32 and with bfloat16 gradients: an update has their dtype.
  const UpdateFunction exact_;
  const UpdateFunction rounded_;

  // Of each leaf, row and chunk.
  std::vector<Sums> sums_;

  std::atomic<int64_t> next_{0};
  std::atomic<int64_t> done_{0};
  std::mutex mutex_;
  std::condition_variable finished_;
};

ffi::Error Invalid(const std::string& message) {
  return ffi::Error(ffi::ErrorCode::kInvalidArgument, "optjax_step: " + message);
}

int64_t WholeBlocks(int64_t elements) {
  return (elements + kCodes - 1) / kCodes * kCodes;
}

// How many scales the codes of a leaf have, of which each row begins a block.
int64_t Scales(int64_t elements, int64_t rows) {
  return rows == 0 ? 0 : rows * (WholeBlocks(elements / rows) / kCodes);
}

// The dtype that an array must have, where it has the one that is given.
ffi::DataType ElementType(int32_t which, ffi::DataType dtype, bool coded) {
  if (coded && which == array::m) return ffi::DataType::S8;
  if (coded && (which == array::nu || which == array::nu_max)) return ffi::DataType::U8;
  const bool may_be_narrow = which < array::kNumbers && dtype == ffi::DataType::BF16;
  return may_be_narrow ? dtype : ffi::DataType::F32;
}

// Operands: coefficients (..., 16), the key of the noise (..., 2), then for each array
// that the form has its leaves; results: the leaves without gradients. The leading
// dimensions of the coefficients are leading dimensions of every leaf, each with
// coefficients and a key of its own. A leaf with bounds of its own has them in an operand
// (..., 2), of which the result is the norms. Of a packed state there is one array of each
// kind, in which the leaves lie end to end, the first of them at `start`.
ffi::Error Step(ffi::ThreadPool pool, int32_t d, int32_t a, int32_t b, bool decay,
                bool l2, int32_t stored, bool packed, int64_t start,
                ffi::RemainingArgs args, ffi::RemainingRets rets) {
  if (d < 0 || d >= direction::kCount || a < 0 || a >= accumulator::kCount || b < 0 ||
      b >= bounded::kCount || stored < 0 || stored >= storage::kCount) {
    return Invalid("unknown form");
  }
  const int32_t form = FormIndex(d, a, b, decay, l2, kExact);
  const bool measures = b == bounded::own;
  const bool noisy = stored == storage::stochastic;
  if (kPlain.update[form] == nullptr) return Invalid("a bound needs an accumulator");
  if (stored != storage::nearest && kPlain.update[form + kStochastic] == nullptr) {
    return Invalid("noise needs a state");
  }

  std::vector<int32_t> arrays = {array::grads, array::params};
  if (d != direction::gradient) arrays.push_back(array::m);
  if (a != accumulator::one) arrays.push_back(array::nu);
  if (a == accumulator::max) arrays.push_back(array::nu_max);
  const size_t numbers = arrays.size();
  const bool coded = stored == storage::compressed;
  for (size_t k = 2; coded && k < numbers; ++k) {
    arrays.push_back(arrays[k] - array::m + array::m_scale);
  }
  if (measures) arrays.push_back(array::norms);
  if (packed && coded) return Invalid("codes cannot be packed");

  // Where the leaves of each array begin among the operands, and if they share one.
  const auto is_shared = [&](size_t k) { return packed && k >= 2 && k < numbers; };
  const size_t shared = packed ? numbers - 2 : 0;
  const size_t each = arrays.size() - shared;
  const size_t leaf_count = rets.size() < shared ? 0 : (rets.size() - shared) / (each - 1);
  if (args.size() != 2 + leaf_count * each + shared ||
      rets.size() != leaf_count * (each - 1) + shared) {
    return Invalid("operands and results do not match the form");
  }
  std::vector<size_t> first = {0};
  for (size_t k = 0; k < arrays.size(); ++k) {
    first.push_back(first[k] + (is_shared(k) ? 1 : leaf_count));
  }

  const auto coefficients = args.get<ffi::AnyBuffer>(0);
  if (!coefficients.has_value()) return coefficients.error();
  if (coefficients->element_type() != ffi::DataType::F32 ||
      coefficients->element_count() % kCoefficients != 0) {
    return Invalid("coefficients must be float32 of shape (..., 16)");
  }
  const int64_t rows = coefficients->element_count() / kCoefficients;
  const auto keys = args.get<ffi::AnyBuffer>(1);
  if (!keys.has_value()) return keys.error();
  if (keys->element_type() != ffi::DataType::U32 ||
      static_cast<int64_t>(keys->element_count()) != 2 * rows) {
    return Invalid("keys must be uint32 of shape (..., 2)");
  }

  std::vector<Leaf> leaves;
  leaves.reserve(leaf_count);
  int64_t size = 0;
  for (size_t i = 0; i < leaf_count; ++i) {
    Leaf leaf;
    int64_t elements = 0;
    for (size_t k = 0; k < arrays.size(); ++k) {
      const size_t place = first[k] + (is_shared(k) ? 0 : i);
      const auto operand = args.get<ffi::AnyBuffer>(2 + place);
      if (!operand.has_value()) return operand.error();
      const ffi::DataType dtype = operand->element_type();
      const int32_t which = arrays[k];
      if (dtype != ElementType(which, dtype, coded)) {
        return Invalid("leaves must be float32 or bfloat16, or a state's codes");
      }
      if (k == 0) elements = operand->element_count();
      const auto count = static_cast<int64_t>(operand->element_count());
      const int64_t expected = which == array::norms ? 2 * rows
                               : is_shared(k)        ? count
                               : k < numbers         ? elements
                                                     : Scales(elements, rows);
      Buffer& buffer = leaf.arrays[which];
      buffer.in = static_cast<const char*>(operand->untyped_data());
      buffer.bfloat16 = dtype == ffi::DataType::BF16;
      if (noisy && k != 1 && k < numbers && buffer.bfloat16 != (k > 1)) {
        return Invalid("noise is for a state in bfloat16 of gradients in float32");
      }
      bool same = count == expected;
      if (k > 0) {
        auto result = rets.get<ffi::AnyBuffer>(place - leaf_count);
        if (!result.has_value()) return result.error();
        buffer.out = static_cast<char*>((*result)->untyped_data());
        same = same && (*result)->element_type() == dtype &&
               static_cast<int64_t>((*result)->element_count()) == expected;
      }
      if (is_shared(k) && rows > 0) {
        const int64_t row = elements / rows;
        same = same && count % rows == 0 && start >= 0 && start + row <= count / rows;
        const int64_t offset = start * (buffer.bfloat16 ? 2 : 4);
        buffer.in += offset;
        buffer.out += offset;
        buffer.others = count / rows - row;
      }
      if (!same) return Invalid("the arrays of a leaf must have one size");
    }
    if (rows > 0) start += elements / rows;
    if (elements == 0) {
      if (measures) std::memset(leaf.arrays[array::norms].out, 0, 2 * rows * sizeof(float));
      continue;
    }
    if (rows == 0 || elements % rows != 0) {
      return Invalid("leaves must have the leading dimensions of the coefficients");
    }
    leaf.row = elements / rows;
    leaf.stride = coded ? WholeBlocks(leaf.row) : leaf.row;
    leaf.begin = size;
    size += rows * leaf.stride;
    leaves.push_back(leaf);
  }
  if (size == 0) return ffi::Error::Success();

  const int64_t threads = std::max<int64_t>(1, pool.num_threads());
  // The same for any number of threads, and so are sums.
  const int64_t chunk = WholeBlocks(
      std::clamp(size / kChunks, kSmallestChunk, kLargestChunk));
  const auto job = std::make_shared<Job>(
      std::move(leaves), size, chunk,
      static_cast<const Coefficients*>(coefficients->untyped_data()),
      static_cast<const Key*>(keys->untyped_data()), form, stored, measures);
  // The calling thread is one of the workers.
  const int64_t helpers = std::min(threads, job->chunks()) - 1;
  for (int64_t i = 0; i < helpers; ++i) pool.Schedule([job] { job->Work(); });
  job->Work();
  job->Wait();
  if (measures) job->WriteNorms();
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(OptjaxStep, Step,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<int32_t>("direction")
                                  .Attr<int32_t>("accumulator")
                                  .Attr<int32_t>("bounded")
                                  .Attr<bool>("decay")
                                  .Attr<bool>("l2")
                                  .Attr<int32_t>("storage")
                                  .Attr<bool>("packed")
                                  .Attr<int64_t>("start")
                                  .RemainingArgs()
                                  .RemainingRets());

// What this was compiled against. XLA refuses to start with a newer handler than itself,
// so _library.py looks before it registers one.
extern "C" const int32_t OptjaxFfiVersion[2] = {XLA_FFI_API_MAJOR, XLA_FFI_API_MINOR};

// What Step computes and how it is called; _library.py takes no library that
// says anything else than _kernel.py. Count the number up with every change of the equation.
extern "C" const char OptjaxStepInterface[] =
    "step 6; coefficients" OPTJAX_COEFFICIENTS(OPTJAX_WORD)
    "; arrays" OPTJAX_ARRAYS(OPTJAX_WORD)
    "; direction" OPTJAX_DIRECTIONS(OPTJAX_WORD)
    "; accumulator" OPTJAX_ACCUMULATORS(OPTJAX_WORD)
    "; bounded" OPTJAX_BOUNDED(OPTJAX_WORD)
    "; storage" OPTJAX_STORAGES(OPTJAX_WORD);
