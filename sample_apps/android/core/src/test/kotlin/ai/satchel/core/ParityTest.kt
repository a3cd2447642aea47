package ai.satchel.core

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import kotlin.math.exp
import kotlin.math.ln

class ParityTest {
    @Test
    fun `the limits are the runtime's`() {
        val own = checkNotNull(Limits::class.java.getResourceAsStream("limits.json")).use { it.readBytes() }
        assertTrue(own.contentEquals(Vectors.bytes("limits.json")))
        val limits = Limits.limitsFor(Comparison.lowering, Arithmetic.fp32, "fp32")
        assertEquals(1e-5, limits.getValue("kl_mean").value)
        assertTrue(
            Limits.allows(limits["kl_mean"], "kl_mean", 1e-5) && !Limits.allows(limits["kl_mean"], "kl_mean", 2e-5),
        )
        assertTrue(
            !Limits.allows(limits["top1_or_tie"], "top1_or_tie", 0.9) &&
                !Limits.allows(limits["top1_or_tie"], "top1_or_tie", null),
        )
        assertEquals(
            listOf(Arithmetic.fp32, Arithmetic.fp16, Arithmetic.int8, Arithmetic.int8),
            listOf("fp32", "fp16", "int8", "palette").map(Limits::arithmeticOf),
        )
    }

    @Test
    fun `figures are those of the formulas`() {
        val logits = floatArrayOf(1f, 2f, 3f, 0.5f)
        val rest = ln(exp(1.0) + exp(0.5))
        assertEquals(0.0, klFromTop(intArrayOf(2, 1), floatArrayOf(3f, 2f), rest, logits), 1e-12)
        val wanted = 0.75 * ln(1.5) + 0.25 * ln(0.5)
        assertEquals(wanted, klFromTop(intArrayOf(0), floatArrayOf(ln(3f)), 0.0, floatArrayOf(0f, 0f)), 1e-6)
        assertTrue(klFromTop(intArrayOf(0), floatArrayOf(1f), 0.0, floatArrayOf(Float.NaN, 0f)).isNaN())
        assertEquals(2.5, percentile(listOf(1.0, 2.0, 3.0, 4.0), 0.5))
        assertEquals(1.0, standardError(listOf(1.0, 1.0, 3.0, 3.0), 2))
        assertTrue(largestDifference(intArrayOf(0, 1), floatArrayOf(1f, 1f), floatArrayOf(Float.NaN, 5f)).isNaN())
    }

    @Test
    fun `a backend that repeats golden's logits passes, and one that does not fails`() {
        val bundle = openBundle(FolderSource(Vectors.tinyBundle))
        val golden = readGolden(bundle)
        val good = checkParity(bundle, Echo(golden, 1f), Host("Pixel 9 Pro"), "echo", 1.0)
        assertEquals(
            emptyList<Row>(),
            good.rows.filter {
                it.comparison == Comparison.lowering && it.route != "greedy" && !it.passed
            },
        )
        assertEquals("parity-pixel-9-pro.json", good.fileName)
        val bad = checkParity(bundle, Echo(golden, -1f), Host("x"), "echo", 1.0)
        assertTrue(
            !bad.passed && bad.rows.any {
                it.figure == "kl_mean" && it.comparison == Comparison.lowering && !it.passed
            },
        )
        val nan = checkParity(bundle, Echo(golden, Float.NaN), Host("x"), "echo", 1.0, ReplayOptions(prompts = 1))
        assertTrue(
            nan.rows.filter {
                it.figure == "kl_max" && it.comparison == Comparison.lowering
            }.all { it.value == 1e30 },
        )
        parseJson(nan.json.toByteArray(), "report")
    }

    /** Says what the golden weights say, times a factor; the ids that golden does not know are far below. */
    private class Echo(private val golden: Golden, private val factor: Float) : Backend {
        private val ids = ArrayList<Int>()
        override val position get() = ids.size
        private val set = golden.sets.getValue(SetName.weights)

        override fun reset() = ids.clear()

        override fun prefill(ids: IntArray): FloatArray {
            this.ids.addAll(ids.toList())
            val prompt = golden.prompts.indices.firstOrNull {
                golden.prompts[it].sequence.take(this.ids.size) == this.ids
            } ?: return FloatArray(320)
            val row = golden.starts[prompt] + this.ids.size - 1
            val rest = set.restLogsumexp[row] - ln((320 - golden.top).toFloat())
            val logits = FloatArray(320) { rest * factor }
            for (i in 0 until golden.top) {
                logits[set.topIds[row * golden.top + i]] =
                    set.topLogits[row * golden.top + i] * factor
            }
            return logits
        }

        override fun step(id: Int) = prefill(intArrayOf(id))

        override fun close() = Unit
    }
}
