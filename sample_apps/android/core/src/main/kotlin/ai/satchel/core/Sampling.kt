package ai.satchel.core

/** How ids are chosen from logits, exactly as runtime/FORMAT.md, "Sampling", says; runtime/sampling.py is its twin. */
data class Sampling(
    /** Divides the logits; 0 is greedy. */
    val temperature: Double,
    /** The k likeliest ids only; 0 keeps all. */
    val topK: Int,
    /** The fewest ids whose probabilities sum to at least this; 1 keeps all. */
    val topP: Double,
) {
    /** Throws a UsageError. */
    fun check() {
        if (!(temperature >= 0 && temperature < Double.POSITIVE_INFINITY)) {
            throw usageError("temperature is out of range", got = temperature, wanted = ">= 0; 0 is greedy")
        }
        if (topK < 0) throw usageError("top_k is out of range", got = topK, wanted = ">= 0; 0 keeps all ids")
        if (!(topP > 0 && topP <= 1)) {
            throw usageError("top_p is out of range", got = topP, wanted = "0 < top_p <= 1; 1 keeps all ids")
        }
    }
}

/** Chooses ids, one random number each; the same seed gives the same choices. Throws a UsageError. */
class Sampler(private val how: Sampling, private val random: Pcg64) {
    constructor(how: Sampling, seed: Long? = null) : this(how, Pcg64(seed ?: systemSeed()))

    init {
        how.check()
    }

    fun choose(logits: FloatArray): Int = if (how.temperature ==
        0.0
    ) {
        greedy(logits)
    } else {
        choose(logits, how, random.next())
    }
}

/** The id of the largest logit; of equal ones the lowest. A NaN counts as the largest, as numpy has it. */
fun greedy(logits: FloatArray): Int {
    var best = 0
    for (i in logits.indices) {
        if (logits[i].isNaN()) return i
        if (logits[i] > logits[best]) best = i
    }
    return best
}

/** The id that the random number u in [0, 1) picks; the temperature is above 0. */
fun choose(logits: FloatArray, how: Sampling, u: Double): Int {
    val ids = likeliest(logits, how.topK)
    val first = logits[ids[0]] / how.temperature
    var total = 0.0
    val sums = DoubleArray(ids.size) { i ->
        total += StrictMath.exp(logits[ids[i]] / how.temperature - first) // the same on every device
        total
    }
    val kept = if (how.topP < 1) maxOf(sums.indexOfFirst { it >= how.topP * total } + 1, 1) else sums.size
    val last = sums[kept - 1]
    val picked = sums.indexOfFirst { it > u * last }
    return ids[if (picked < 0) kept - 1 else minOf(picked, kept - 1)]
}

/** Ids by falling logit, equal ones by rising id: the first topK, or all. */
fun likeliest(logits: FloatArray, topK: Int): IntArray {
    val keys = if (topK in 1 until logits.size) {
        candidates(logits, topK)
    } else {
        LongArray(logits.size) {
            key(logits[it], it)
        }
    }
    keys.sort()
    val count = if (topK in 1 until logits.size) topK else keys.size
    return IntArray(count) { (keys[it] and 0xffffffffL).toInt() }
}

private fun candidates(logits: FloatArray, topK: Int): LongArray {
    val threshold = logits.copyOf().apply { sort() }[logits.size - topK]
    val found = LongArray(logits.count { it >= threshold })
    var count = 0
    for (i in logits.indices) if (logits[i] >= threshold) found[count++] = key(logits[i], i)
    return found
}

/** Sorts as a number by falling logit, then by rising id: the logit's bits made to sort as integers, above the id. */
private fun key(logit: Float, id: Int): Long {
    val bits = (logit + 0f).toRawBits() // -0 becomes 0
    val rising = if (bits < 0) bits.inv() xor Int.MIN_VALUE else bits
    return rising.inv().toLong() shl 32 or id.toLong()
}
