"""What each argument is: its annotation says so, and `checked` refuses the rest.

    @checked
    def ema(decay: Decay, debias: bool = True, ...):

For a type checker `Decay` is a number; for `checked` it is one in [0, 1). What is
concrete is checked before any work. Of what JAX traces only dtype and shape are known,
and only they are looked at. A number in half precision is handed on in float32.

`kind` is what all kinds share, `numbers` and `objects` are the kinds, `named` those
with a name, and `checked` reads them from the annotations of a function.
"""
