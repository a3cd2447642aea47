package ai.satchel.core

/** How ids are given to the backend: all by steps, or the prompt by prefill. */
enum class Route { decode, prefill }

typealias Figures = Map<String, Double?>

private const val FORCED = 8 // decode steps after a prefill
private const val KEPT = 4 // logits kept of each row: by them two machines are compared with each other
private const val LARGEST = 1e30 // stands for infinity in figures, so that JSON can hold it

/** Figures of each row that a route gave, against one golden set. */
class RowFigures {
    val rows = ArrayList<Int>()

    /** Id of the largest logit. */
    val best = ArrayList<Int>()

    /** By how much it exceeds the second. */
    val margin = ArrayList<Double>()

    /** Those of the set's KEPT best ids. */
    val logits = ArrayList<Double>()
    val kl = ArrayList<Double>()
    private val agrees = ArrayList<Boolean>()
    private val gap = ArrayList<Double>()
    private val difference = ArrayList<Double>()

    fun add(set: GoldenSet, top: Int, row: Int, candidate: FloatArray) {
        val ids = set.topIds.copyOfRange(row * top, (row + 1) * top)
        val values = set.topLogits.copyOfRange(row * top, (row + 1) * top)
        val first = greedy(candidate)
        rows.add(row)
        best.add(first)
        margin.add(candidate[first].toDouble() - second(candidate, first))
        for (id in ids.take(KEPT)) logits.add(candidate[id].toDouble())
        kl.add(klFromTop(ids, values, set.restLogsumexp[row].toDouble(), candidate))
        agrees.add(first == ids[0])
        gap.add(if (top > 1) values[0].toDouble() - values[1] else Double.POSITIVE_INFINITY)
        difference.add(largestDifference(ids, values, candidate))
    }

    /** tie: the gap below which another best id is a matter of rounding. NaN and infinity pass no limit. */
    fun figures(tie: Double): Figures {
        val bounded = kl.map(::bounded)
        val error = if (kl.all { it.isFinite() }) standardError(kl, FORCED * 2) else Double.NaN
        return linkedMapOf(
            "kl_mean" to bounded.average(),
            "kl_p99" to percentile(bounded, 0.99),
            "kl_max" to bounded.max(),
            "kl_standard_error" to error.takeIf { it.isFinite() },
            "top1" to share(agrees),
            "top1_or_tie" to share(agrees.indices.map { agrees[it] || gap[it] < tie }),
            "difference_max" to difference.maxOf(::bounded),
            "positions" to kl.size.toDouble(),
        )
    }

    private fun second(candidate: FloatArray, first: Int): Float {
        var largest = Float.NEGATIVE_INFINITY
        for (i in candidate.indices) if (i != first && !(candidate[i] <= largest)) largest = candidate[i]
        return largest
    }
}

private fun bounded(value: Double): Double = if (value.isNaN()) LARGEST else minOf(value, LARGEST)

private fun share(holds: List<Boolean>): Double = holds.count { it }.toDouble() / holds.size

/** The first ids that differ, by how much the golden model preferred its own, and whether `got` was its second. */
data class Parted(val got: Int, val wanted: Int, val gap: Double, val runnerUp: Boolean)

/** A greedy answer beside a golden one: `agreed` ids before the first that differs, and all ids. */
class Answer(val prompt: Int, val agreed: Int, val parted: Parted?, val ids: List<Int>) {
    val steps: Int get() = ids.size
}

class Replay(names: Collection<SetName>) {
    val rows: Map<SetName, Map<Route, RowFigures>> = names.associateWith {
        Route.entries.associateWith { RowFigures() }
    }
    val answers: Map<SetName, MutableList<Answer>> = names.associateWith { ArrayList() }
    val seconds = Route.entries.associateWithTo(HashMap()) { 0.0 }
    val tokens = Route.entries.associateWithTo(HashMap()) { 0 }

    /** Prompts that the context cannot hold. */
    var skipped = 0

    /** Tokens a second, null where nothing was timed. */
    fun rate(route: Route): Double? = seconds.getValue(route).let { if (it > 0) tokens.getValue(route) / it else null }
}

class ReplayOptions(
    /** Only the first so many prompts. */
    val prompts: Int? = null,
    val progress: (done: Int, total: Int) -> Unit = { _, _ -> },
    val cancellation: Cancellation = Cancellation(),
)

/**
 * Replays golden prompts through a backend by every route that an app takes. runtime/replay.py is its twin.
 *
 * decode: every id by a step, from an empty cache. prefill: the prompt in one call and in two, each followed by FORCED
 * steps, and the whole sequence in one. greedy: the prompt by prefill, then what the backend itself thinks best.
 */
fun replay(backend: Backend, golden: Golden, contextLength: Int, options: ReplayOptions = ReplayOptions()): Replay {
    val result = Replay(golden.sets.keys)
    val player = Player(Timed(backend, result, options.cancellation), golden, result)
    val prompts = golden.prompts.take(options.prompts ?: golden.prompts.size)
    options.progress(0, prompts.size)
    for ((number, prompt) in prompts.withIndex()) {
        if (prompt.ids.size > contextLength) result.skipped++ else player.play(number, cut(prompt, contextLength))
        options.progress(number + 1, prompts.size)
    }
    return result
}

/** The prompt with as much of its continuation as the cache holds; the last id needs no place. */
private fun cut(prompt: GoldenPrompt, contextLength: Int): GoldenPrompt {
    val room = minOf(prompt.continuation.size, contextLength - prompt.ids.size + 1)
    return GoldenPrompt(prompt.text, prompt.ids, prompt.continuation.copyOf(room))
}

private class Player(private val backend: Timed, private val golden: Golden, private val result: Replay) {
    fun play(number: Int, prompt: GoldenPrompt) {
        val start = golden.starts[number]
        decode(prompt) { offset, logits -> add(Route.decode, start + offset, logits) }
        prefill(prompt) { offset, logits -> add(Route.prefill, start + offset, logits) }
        val answer = answer(prompt)
        for ((name, set) in golden.sets) result.answers.getValue(name).add(compared(number, answer, set))
    }

    private fun add(route: Route, row: Int, logits: FloatArray) {
        for ((name, set) in golden.sets) result.rows.getValue(name).getValue(route).add(set, golden.top, row, logits)
    }

    private fun decode(prompt: GoldenPrompt, found: (Int, FloatArray) -> Unit) {
        backend.reset()
        for ((offset, id) in prompt.sequence.withIndex()) found(offset, backend.step(id))
    }

    private fun prefill(prompt: GoldenPrompt, found: (Int, FloatArray) -> Unit) {
        val last = prompt.ids.size - 1
        for (half in setOf(0, prompt.ids.size / 2)) {
            backend.reset()
            if (half > 0) found(half - 1, backend.prefill(prompt.ids.copyOf(half)))
            found(last, backend.prefill(prompt.ids.copyOfRange(half, prompt.ids.size)))
            for ((i, id) in prompt.continuation.dropLast(
                1,
            ).take(FORCED).withIndex()) {
                found(last + 1 + i, backend.step(id))
            }
        }
        backend.reset()
        found(prompt.sequence.size - 1, backend.prefill(prompt.sequence))
    }

    private fun answer(prompt: GoldenPrompt): List<Int> {
        backend.reset()
        val chosen = arrayListOf(greedy(backend.prefill(prompt.ids)))
        while (chosen.size < prompt.continuation.size) chosen.add(greedy(backend.step(chosen.last())))
        return chosen
    }

    private fun compared(number: Int, ids: List<Int>, set: GoldenSet): Answer {
        val row = number * golden.prompts[0].continuation.size
        val agreed = ids.indices.firstOrNull {
            ids[it] != set.greedyIds[row + it]
        } ?: return Answer(number, ids.size, null, ids)
        val (got, wanted) = ids[agreed] to set.greedyIds[row + agreed]
        val parted =
            Parted(got, wanted, set.greedyGap[row + agreed].toDouble(), got == set.greedyRunnerUp[row + agreed])
        return Answer(number, agreed, parted, ids)
    }
}

/** A backend with a stopwatch, that lets a person cancel between two calls. */
private class Timed(private val backend: Backend, private val result: Replay, private val cancellation: Cancellation) {
    fun reset() = backend.reset()

    fun prefill(ids: IntArray): FloatArray = measured(Route.prefill, ids.size) { backend.prefill(ids) }

    fun step(id: Int): FloatArray = measured(Route.decode, 1) { backend.step(id) }

    private fun measured(route: Route, tokens: Int, call: () -> FloatArray): FloatArray {
        cancellation.check()
        val start = System.nanoTime()
        val logits = call()
        result.seconds.merge(route, (System.nanoTime() - start) / 1e9, Double::plus)
        result.tokens.merge(route, tokens, Int::plus)
        return logits
    }
}
