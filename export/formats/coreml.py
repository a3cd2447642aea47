"""A decoder -> `model.mlpackage`, built with coremltools' MIL builder: nothing is traced, and no pass runs.

How to call it (`S` tokens a call, `C` = context_length, `L` layers, `KV` key/value heads, `D` head_dim, `V` vocabulary;
`float` is fp16, or fp32 when the weights are fp32 matrices):

    inputs   inputIds   int32 [1, S]          token ids; a short chunk is padded at its end with any valid id
             position   int32 [1]             tokens already in the cache; position + S <= C must hold
             keyCache   float [L, KV, C, D]   only where options["cache"] == "io"; keys are stored after rotary
             valueCache float [L, KV, C, D]   only where options["cache"] == "io"
    states   keyCache, valueCache  fp16 [L, KV, C, D]   only where options["cache"] == "state"; zeros at the start
    outputs  logits     float [1, S, V]       row i follows token i; rows of padding mean nothing
             presentKeys, presentValues  float [L, KV, S, D]   only where options["cache"] == "io"

There is no mask to supply: the program derives it from `position` (slot j of the cache is seen when j < position, token
i of this call by tokens >= i), as it does the rotary angles. What lies in the cache at or after `position` is never seen
as long as it is finite, so padding needs no cleaning: the next call starts at position + (real tokens) and overwrites
it. With states the program itself writes rows position .. position + S - 1. With "io" the caller copies the rows of
presentKeys and presentValues that belong to real tokens into the caches at `position`. To empty the cache, start again
at position 0.

ModelEntry.options:

    functions   {"prefill": NAME, "decode": NAME}: the program's function for S = prefill_length and for S = 1. The default
                function is "main", decode. Without "prefill" there is one function, and prefill_length is 1.
    cache       "state" or "io", as above.
    mask        "position": derived from it in the program.
    layout      "channels_first" or "plain": how the inside is laid out; the signature is the same.
    target      "iOS16", "iOS17" or "iOS18".
    compute     what the app should ask for in MLModelConfiguration.computeUnits, such as "cpuAndNeuralEngine".
    precision   "float16" or "float32": of the program's arithmetic.

Names are swift-transformers' where it has one (inputIds, keyCache, valueCache, logits, presentKeys, presentValues). Its
own generation loop wants one function of flexible length and takes the position from a mask's shape; shapes that change
leave the Neural Engine (neural-engine rule 6), so here every shape is static and the position is an input.

Before iOS18 there is no program of several functions. A second package would double the download, and a flexible
length would leave the engine, so there the prompt goes through the one function of S = 1. States came with iOS18 too,
and hold fp16 only: fp32 programs pass their cache through inputs and outputs on every target.

How weights are named in the program, so that they can be read back (canonical names with "." written as "__"):

    layers__3__mlp__up_proj           the constexpr op's output, or the const of a matrix that is kept as floats
    layers__3__mlp__up_proj__scale    const, the palette's row scales, multiplied after the conv or linear (shape
                                      [1, O, 1, 1] or [O]; [V, 1] and gathered for the embedding). Without it there is none
    layers__3__mlp__up_proj__bias     const; norm gains are consts by their own names, such as layers__3__input_layernorm
    lm_head__part2, ..part2__scale    consecutive rows of a head that is split; parts in order make up the matrix
    embed_tokens__part2               the same of a tied head: rows of embed_tokens once more, to be reported once
    embed_tokens__head                a tied head in one piece

Both functions of a program name the same blobs. With plan["tied_head"] "shared" the parts' blob headers point into the
embedding's data; "duplicated" gives them copies, in case a reader of Core ML's refuses that.
"""
