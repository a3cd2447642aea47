package ai.satchel.core

import java.math.BigDecimal
import java.math.MathContext

/** One figure, with what was allowed; no limit where the figure is for information. */
data class Row(
    val comparison: Comparison,
    /** "decode", "prefill" or "greedy". */
    val route: String,
    val figure: String,
    val value: Double?,
    val limit: Limit?,
) {
    val passed: Boolean get() = Limits.allows(limit, figure, value)
}

/** What ran the model: its name, for the file's, and whatever else is known of it. */
class Host(val device: String, val facts: Map<String, Any?> = emptyMap())

/** Does this device say what the bundle's golden data say? */
class ParityReport(
    val rows: List<Row>,
    val answers: Map<Comparison, List<Answer>>,
    val skipped: Int,
    val tokensPerSecond: Map<Route, Double?>,
    /** parity-<device>.json, by the host's name. */
    val fileName: String,
    /** Its content. */
    val json: String,
) {
    val passed: Boolean get() = rows.all { it.passed }
}

/**
 * Replays the golden prompts and holds the figures to their limits; the report has the keys of runtime/parity.py's.
 *
 * @param run what executes the model, "onnxruntime" or "executorch"
 * @param loadSeconds how long the model took to load
 */
fun checkParity(
    bundle: Bundle,
    backend: Backend,
    host: Host,
    run: String,
    loadSeconds: Double,
    options: ReplayOptions = ReplayOptions(),
): ParityReport {
    val context = bundle.manifest.entry.contextLength
    val golden = readGolden(bundle)
    if (golden.prompts.take(options.prompts ?: golden.prompts.size).all { it.ids.size > context }) {
        throw bundleError("no golden prompt fits the context", wanted = context)
    }
    return Judgement(bundle, golden, replay(backend, golden, context, options)).report(host, run, loadSeconds)
}

/** "Pixel 9 Pro" -> "parity-pixel-9-pro.json". */
fun parityFileName(device: String): String {
    val slug = device.lowercase().replace(Regex("[^a-z0-9]+"), "-").trim('-').take(60)
    return "parity-${slug.ifEmpty { "machine" }}.json"
}

private class Judgement(private val bundle: Bundle, private val golden: Golden, private val result: Replay) {
    private val scheme = bundle.manifest.scheme
    private val arithmetic = Limits.arithmeticOf(scheme)
    private val comparisons = Comparison.entries.filter { it.set in golden.sets }
    private val answers = comparisons.associateWith { result.answers.getValue(it.set) }
    private val rows = comparisons.flatMap(::judged)

    fun report(host: Host, run: String, loadSeconds: Double): ParityReport {
        val rates = Route.entries.associateWith { result.rate(it) }
        val json = canonicalJson(json(host, run, loadSeconds))
        return ParityReport(rows, answers, result.skipped, rates, parityFileName(host.device), json)
    }

    private fun judged(comparison: Comparison): List<Row> {
        val tie = Limits.tieOf(comparison, arithmetic)
        val limits = Limits.limitsFor(comparison, arithmetic, scheme)
        val routes = result.rows.getValue(comparison.set).map { (route, figures) -> route.name to figures.figures(tie) }
        val all = routes + ("greedy" to greedyFigures(answers.getValue(comparison), tie))
        return all.flatMap { (route, figures) ->
            figures.map { (name, value) -> Row(comparison, route, name, value, limits[name]) }
        }
    }

    private fun greedyFigures(answers: List<Answer>, tie: Double): Figures = linkedMapOf(
        "greedy_agreement" to answers.map { it.agreed.toDouble() / it.steps }.average(),
        "greedy_diverged" to answers.map {
            if (it.parted != null && !(it.parted.gap < tie)) 1.0 else 0.0
        }.average(),
        "prompts" to answers.size.toDouble(),
    )

    private fun json(host: Host, run: String, loadSeconds: Double): Map<String, Any?> {
        val manifest = bundle.manifest
        val failures = rows.filter { !it.passed }
        return mapOf(
            "schema_version" to 1L,
            "passed" to failures.isEmpty(),
            "bundle" to mapOf(
                "model" to manifest.model.modelId,
                "device" to manifest.plan.device,
                "format" to manifest.entry.format,
                "weights" to scheme,
                "bytes" to bundle.bytes,
                "manifest" to bundle.id,
            ),
            "host" to host.facts + ("device" to host.device),
            "skipped_prompts" to result.skipped,
            "runs" to listOf(
                mapOf(
                    "name" to run,
                    "arithmetic" to arithmetic.name,
                    "comparisons" to nested(),
                    "answers" to answers.entries.associate { (comparison, all) ->
                        comparison.name to all.map { answerJson(comparison, it) }
                    },
                    "positions" to positionsJson(),
                ),
            ),
            "failures" to failures.map { failureJson(it, run, failures) },
            "timings" to mapOf(
                run to mapOf(
                    "load_seconds" to rounded(loadSeconds),
                    "prefill_tokens_per_second" to rounded(result.rate(Route.prefill)),
                    "decode_tokens_per_second" to rounded(result.rate(Route.decode)),
                ),
            ),
        )
    }

    private fun nested(): Map<String, Any?> = rows.groupBy {
        it.comparison.name
    }.mapValues { (_, of) -> of.groupBy { it.route }.mapValues { (_, all) -> all.map(::rowJson) } }

    private fun answerJson(comparison: Comparison, answer: Answer): Map<String, Any?> {
        val said = mapOf(
            "prompt" to answer.prompt,
            "agreed" to answer.agreed,
            "steps" to answer.steps,
            "ids" to answer.ids,
        )
        val (got, wanted, gap, runnerUp) = answer.parted ?: return said
        val tie = gap < Limits.tieOf(comparison, arithmetic)
        return said +
            mapOf("got" to got, "wanted" to wanted, "gap" to rounded(gap), "near_tie" to tie, "runner_up" to runnerUp)
    }

    /** Figures of single positions, of the decode route. */
    private fun positionsJson(): Map<String, Any?> {
        val decode = result.rows.getValue(SetName.reference).getValue(Route.decode)
        val kl = comparisons.associate {
            it.name to result.rows.getValue(it.set).getValue(Route.decode).kl.map(::rounded)
        }
        return mapOf(
            "starts" to golden.starts,
            "rows" to decode.rows,
            "best" to decode.best,
            "margin" to decode.margin.map(::rounded),
            "logits" to decode.logits.map(::rounded),
            "kl" to kl,
        )
    }
}

private fun rowJson(row: Row): Map<String, Any?> {
    val said = mapOf("figure" to row.figure, "value" to rounded(row.value))
    val limit = row.limit ?: return said
    val bound = if (Limits.isMaximum(row.figure)) "at_most" else "at_least"
    return said + mapOf(bound to limit.value, "reason" to limit.reason, "passed" to row.passed)
}

private fun failureJson(row: Row, run: String, failures: List<Row>): Map<String, Any?> =
    mapOf("run" to run, "comparison" to row.comparison.name, "route" to row.route) + rowJson(row) +
        ("next" to whereToLook(row, failures))

/** The likeliest place of the fault, from which other figures are good; runtime/parity.py has the same words. */
private fun whereToLook(row: Row, failures: List<Row>): String {
    val lowered = failures.filter { it.comparison == Comparison.lowering }.map { it.route }
    if (row.comparison == Comparison.quality) {
        if (lowered.isNotEmpty()) {
            return "look at the lowering first: this run does not even agree with the bundle's own weights"
        }
        return "the program is right and the weights are not good enough: try other --weights or more calibration text"
    }
    if (Route.decode.name !in
        lowered
    ) {
        return "decode steps are right: look at the prefill function, its positions, mask and padding"
    }
    if (Route.prefill.name !in
        lowered
    ) {
        return "prefill is right: look at the decode function and at how it writes the cache"
    }
    return "both routes differ: compare `satchel inspect --weights` with another format's, then the ops of this format"
}

/** Six digits; null where there is no finite number. */
private fun rounded(value: Double?): Double? =
    if (value == null || !value.isFinite()) null else BigDecimal(value).round(MathContext(6)).toDouble()
