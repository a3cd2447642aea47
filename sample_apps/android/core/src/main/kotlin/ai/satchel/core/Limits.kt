package ai.satchel.core

/** Against the bundle's own weights, or against the original model. */
enum class Comparison(val set: SetName) { lowering(SetName.weights), quality(SetName.reference) }

enum class Arithmetic { fp32, fp16, int8 }

/** One limit of a figure, with its reason. */
data class Limit(val figure: String, val value: Double, val reason: String)

/** How far a bundle may be from its golden data. The table is runtime/limits.py's, see limits.json. */
object Limits {
    private val limit = record("figure", "value", "reason") { f ->
        Limit(f("figure", text), f("value", number), f("reason", text))
    }

    private val table: Map<String, Any?> by lazy {
        val stream = checkNotNull(Limits::class.java.getResourceAsStream("limits.json")) {
            "limits.json is not in this app"
        }
        objectOf(stream.use { parseJson(it.readBytes(), "limits.json") }, "limits.json")
    }
    private val maxima by lazy { list(text)(table["maxima"], "maxima").toSet() }

    /** How a runtime on a CPU computes: kernels for compressed weights take activations in 8 bits. */
    fun arithmeticOf(scheme: String): Arithmetic =
        Arithmetic.entries.find { it.name == scheme && it != Arithmetic.int8 } ?: Arithmetic.int8

    /** The gap of logits below which rounding may choose the other id. */
    fun tieOf(comparison: Comparison, arithmetic: Arithmetic): Double = if (comparison == Comparison.quality) {
        number(table["quality_tie"], "quality_tie")
    } else {
        dictionary(number)(table["ties"], "ties").getValue(arithmetic.name)
    }

    /** The limits of a comparison by figure. scheme: of the manifest's weights. */
    fun limitsFor(comparison: Comparison, arithmetic: Arithmetic, scheme: String): Map<String, Limit> {
        val limits =
            when (comparison) {
                Comparison.lowering -> dictionary(list(limit))(table["lowering"], "lowering").getValue(arithmetic.name)
                Comparison.quality -> dictionary(
                    dictionary(list(limit)),
                )(table["quality"], "quality").getValue(arithmetic.name)[scheme]
            }
        return limits.orEmpty().associateBy { it.figure }
    }

    fun isMaximum(figure: String): Boolean = figure in maxima

    /** Whether a figure is within its limit; true without one, false for a figure that could not be had. */
    fun allows(limit: Limit?, figure: String, value: Double?): Boolean = when {
        limit == null -> true
        value == null -> false
        isMaximum(figure) -> value <= limit.value
        else -> value >= limit.value
    }
}
