package ai.satchel.core

import kotlin.math.abs
import kotlin.math.ceil
import kotlin.math.floor
import kotlin.math.sqrt

/*
 * How far logits are from the golden ones, sums in fp64. runtime/metrics.py is the twin, and says what KL is over.
 */

/**
 * KL divergence of one row in nats, over the reference's top ids and one lump of all others.
 *
 * @param topLogits the reference's, of topIds
 * @param rest its logsumexp over the others, -Infinity for none
 * @param candidate the whole row, [vocab]
 */
fun klFromTop(topIds: IntArray, topLogits: FloatArray, rest: Double, candidate: FloatArray): Double {
    val p = normalized(DoubleArray(topIds.size + 1) { if (it < topIds.size) topLogits[it].toDouble() else rest })
    val others = logsumexpWithout(candidate, topIds)
    val q = normalized(
        DoubleArray(topIds.size + 1) {
            if (it < topIds.size) candidate[topIds[it]].toDouble() else others
        },
    )
    var sum = 0.0
    for (i in p.indices) if (p[i] != Double.NEGATIVE_INFINITY) sum += StrictMath.exp(p[i]) * (p[i] - q[i])
    return if (sum > 0 || sum.isNaN()) sum else 0.0
}

/** The largest absolute difference at the reference's top ids; NaN where there is one. */
fun largestDifference(topIds: IntArray, topLogits: FloatArray, candidate: FloatArray): Double {
    var largest = 0.0
    for (i in topIds.indices) {
        val difference = abs(topLogits[i].toDouble() - candidate[topIds[i]])
        if (difference.isNaN()) return difference
        largest = maxOf(largest, difference)
    }
    return largest
}

/** Interpolates linearly, as numpy does. fraction: 0 to 1. */
fun percentile(values: List<Double>, fraction: Double): Double {
    val sorted = values.sorted()
    val place = fraction * (sorted.size - 1)
    val low = sorted[floor(place).toInt()]
    return low + (sorted[ceil(place).toInt()] - low) * (place - floor(place))
}

/** Standard error of the mean, from the means of consecutive blocks: neighbours are alike. NaN below two blocks. */
fun standardError(values: List<Double>, block: Int): Double {
    val means = values.chunked(block).filter { it.size == block }.map { it.average() }
    if (means.size < 2) return Double.NaN
    val centre = means.average()
    return sqrt(means.sumOf { (it - centre) * (it - centre) } / (means.size - 1) / means.size)
}

private fun normalized(values: DoubleArray): DoubleArray {
    val whole = logsumexp(values.size) { values[it] }
    return DoubleArray(values.size) { values[it] - whole }
}

private fun logsumexpWithout(row: FloatArray, ids: IntArray): Double {
    val others = row.copyOf()
    for (id in ids) others[id] = Float.NEGATIVE_INFINITY
    return logsumexp(others.size) { others[it].toDouble() }
}

private inline fun logsumexp(size: Int, value: (Int) -> Double): Double {
    var largest = Double.NEGATIVE_INFINITY
    for (i in 0 until size) value(i).let { if (!(it <= largest)) largest = it }
    val shift = if (largest.isInfinite() || largest.isNaN()) 0.0 else largest
    var sum = 0.0
    for (i in 0 until size) sum += StrictMath.exp(value(i) - shift)
    return StrictMath.log(sum) + shift
}
