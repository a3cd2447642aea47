package ai.satchel.core

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import java.math.BigInteger

class SamplingTest {
    private val vectors = Vectors.json("sampling.json")

    private fun logits(case: Any?): FloatArray = case["logits"].doubles().map { it.toFloat() }.toFloatArray()

    private fun sampling(case: Any?) = Sampling(
        (case["temperature"] as Number).toDouble(),
        (case["top_k"] as Long).toInt(),
        (case["top_p"] as Number).toDouble(),
    )

    @Test
    fun `numpy's random numbers are drawn`() {
        val cases = vectors["random"].items()
        assertEquals(8, cases.size)
        for (case in cases) {
            val random = Pcg64(BigInteger(case["seed"] as String))
            assertEquals(case["numbers"].doubles(), case["numbers"].items().map { random.next() })
        }
    }

    @Test
    fun `the runtime's ids are picked`() {
        val cases = vectors["choices"].items()
        assertEquals(60, cases.size)
        for (case in cases) {
            assertEquals(case["ids"].ints(), case["u"].doubles().map { choose(logits(case), sampling(case), it) })
            assertEquals((case["greedy"] as Long).toInt(), greedy(logits(case)))
        }
    }

    @Test
    fun `a whole answer is the runtime's`() {
        val cases = vectors["runs"].items()
        assertEquals(8, cases.size)
        for (case in cases) {
            val sampler = Sampler(sampling(case), Pcg64(BigInteger(case["seed"] as String)))
            assertEquals(case["ids"].ints(), case["ids"].items().map { sampler.choose(logits(case)) })
        }
    }

    @Test
    fun `settings out of range are refused`() {
        val good = Sampling(1.0, 0, 1.0)
        val bad =
            listOf(
                good.copy(temperature = -1.0),
                good.copy(temperature = Double.NaN),
                good.copy(topK = -1),
                good.copy(topP = 0.0),
                good.copy(topP = 1.1),
            )
        for (how in bad) {
            assertTrue(
                "out of range" in assertThrows(SatchelError::class.java) {
                    Sampler(how, 1L)
                }.message!!,
            )
        }
        assertThrows(SatchelError::class.java) { Pcg64(-1) }
    }

    @Test
    fun `a NaN counts as the largest, of equal ones the lowest id`() {
        assertEquals(1, greedy(floatArrayOf(1f, Float.NaN, 9f)))
        assertEquals(0, greedy(floatArrayOf(-0f, 0f)))
        assertEquals(listOf(2, 0, 1, 3), likeliest(floatArrayOf(0f, -0f, 5f, -1f), 0).toList())
    }
}
