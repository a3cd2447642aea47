package ai.satchel.onnx

import ai.satchel.core.Bundle
import ai.satchel.core.Cancellation
import ai.satchel.core.Comparison
import ai.satchel.core.FinishReason
import ai.satchel.core.FolderSource
import ai.satchel.core.GenerateOptions
import ai.satchel.core.Host
import ai.satchel.core.Message
import ai.satchel.core.OpenOptions
import ai.satchel.core.ReplayOptions
import ai.satchel.core.Sampling
import ai.satchel.core.SatchelError
import ai.satchel.core.Session
import ai.satchel.core.SetName
import ai.satchel.core.checkParity
import ai.satchel.core.openBundle
import ai.satchel.core.parseJson
import ai.satchel.core.readGolden
import org.junit.jupiter.api.AfterAll
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNotEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.BeforeAll
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestInstance
import java.io.File

/** In fp32, where rounding turns nothing: Parity passes, and every greedy answer is golden's to the last id. */
class Fp32BundleTest : OrtBackendTest(single(File(System.getProperty("satchel.fp32") ?: "src/test/bundle")), 1e-3) {
    @Test
    fun `parity passes`() {
        assertEquals(emptyList<Any>(), report.rows.filter { !it.passed })
        assertTrue(report.passed)
        assertTrue(report.answers.values.flatten().all { it.parted == null && it.agreed == it.steps && it.steps == 32 })
    }

    @Test
    fun `greedy answers are those of golden's weights`() {
        val golden = readGolden(bundle)
        val steps = golden.prompts[0].continuation.size
        for ((number, prompt) in golden.prompts.withIndex()) {
            val wanted = golden.sets.getValue(SetName.weights).greedyIds.drop(number * steps).take(steps)
            assertEquals(
                wanted,
                ids(prompt.ids, GenerateOptions(sampling = GREEDY, maxNewTokens = steps, stopIds = emptyList())),
            )
        }
    }
}

/**
 * Palettes of 4 bits, as an export makes them: activations are rounded to 8 bits, so that kernels of another version
 * may turn near ties. Its weights are random, and its quality is not good enough, as Python says too.
 */
class PaletteBundleTest : OrtBackendTest(
    single(File(System.getProperty("satchel.vectors") ?: "../../vectors", "bundle")),
    0.1,
) {
    @Test
    fun `parity to its own weights passes`() {
        assertEquals(emptyList<Any>(), report.rows.filter { it.comparison == Comparison.lowering && !it.passed })
        assertTrue(report.rows.any { it.figure == "kl_mean" && it.limit != null && it.value!! > 0 })
    }
}

private val GREEDY = Sampling(0.0, 0, 1.0)

private fun single(folder: File): File = folder.listFiles().orEmpty().single { it.name.endsWith(".satchel") }

/** A real bundle in ONNX Runtime. tolerance: how far figures may be from Python's, relative to them. */
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
abstract class OrtBackendTest(protected val folder: File, private val tolerance: Double) {
    protected lateinit var bundle: Bundle
    private lateinit var backend: OrtBackend
    private lateinit var session: Session
    protected val report by lazy { checkParity(bundle, backend, HOST, OrtBackend.NAME, 1.0) }

    @BeforeAll
    fun load() {
        bundle = openBundle(FolderSource(folder))
        backend = OrtBackend.open(bundle, threads = 1)
        session = Session.open(bundle, backend)
    }

    @AfterAll
    fun close() = session.close()

    @Test
    fun `figures are those that Python has`() {
        assertEquals("parity-a-jvm.json", report.fileName)
        val run = (parseJson(report.json.toByteArray(), "report") as Map<*, *>).run()
        val python = (parseJson(File(folder, "parity.json").readBytes(), "parity.json") as Map<*, *>).run()
        assertEquals(python["name"] to python["arithmetic"], run["name"] to run["arithmetic"])
        compareFigures(python["comparisons"], run["comparisons"])
        System.getProperty("satchel.reports")?.let {
            File(it, "parity-${bundle.manifest.scheme}.json").writeText(report.json)
        }
    }

    private fun Map<*, *>.run() = (this["runs"] as List<*>).single() as Map<*, *>

    /** The same keys, words and verdicts, and the same numbers but for rounding: both sides are ONNX Runtime. */
    private fun compareFigures(wanted: Any?, got: Any?, where: String = "") {
        when (wanted) {
            is Map<*, *> -> {
                assertEquals(wanted.keys, (got as Map<*, *>).keys, where)
                for ((key, value) in wanted) compareFigures(value, got[key], "$where $key")
            }
            is List<*> -> {
                assertEquals(wanted.size, (got as List<*>).size, where)
                for ((i, value) in wanted.withIndex()) {
                    compareFigures(
                        value,
                        got[i],
                        "$where ${(value as? Map<*, *>)?.get("figure")}",
                    )
                }
            }
            is Number -> assertEquals(
                wanted.toDouble(),
                (got as Number).toDouble(),
                tolerance * (Math.abs(wanted.toDouble()) + 0.1),
                where,
            )
            else -> assertEquals(wanted, got, where)
        }
    }

    @Test
    fun `parity fails against golden data of another model`() {
        val strange = bundle.withReversedLogits()
        val report = checkParity(strange, backend, HOST, OrtBackend.NAME, 1.0, ReplayOptions(prompts = 2))
        assertFalse(report.passed)
        val failures = (parseJson(report.json.toByteArray(), "report") as Map<*, *>)["failures"] as List<*>
        assertTrue(failures.any { (it as Map<*, *>)["comparison"] == Comparison.lowering.name })
    }

    @Test
    fun `golden's prompts are encoded as golden has them`() {
        for (prompt in readGolden(bundle).prompts) {
            val text = checkNotNull(prompt.text)
            val chatted = if (session.template ==
                null
            ) {
                intArrayOf()
            } else {
                session.encodeChat(listOf(Message("user", text)))
            }
            // Golden cuts long prompts.
            val encoded = listOf(session.encode(text), chatted).map { it.take(prompt.ids.size) }
            assertTrue(prompt.ids.toList() in encoded, text)
        }
    }

    @Test
    fun `an answer goes on from what the cache holds`() {
        val user = Message("user", "hello")
        val first = text(listOf(user))
        assertEquals(first, text(listOf(user)))
        val more = listOf(user, Message("assistant", first), user)
        val again = text(more)
        session.forget()
        assertEquals(again, text(more))
    }

    @Test
    fun `an answer stops at a stop id, at its length, at the context, and when it is cancelled`() {
        val id = ids(
            intArrayOf(1),
            GenerateOptions(sampling = GREEDY, maxNewTokens = 1, stopIds = emptyList()),
        ).single()
        val stopped = session.generate(intArrayOf(1), GenerateOptions(sampling = GREEDY, stopIds = listOf(id))) {
            error("not stopped")
        }
        assertEquals(FinishReason.stop to 0, stopped.reason to stopped.tokens)
        val short = session.generate(intArrayOf(1, 2), GenerateOptions(maxNewTokens = 3, stopIds = emptyList())) {}
        assertEquals(FinishReason.length to 3, short.reason to short.tokens)
        val full = session.generate(intArrayOf(1, 2), GenerateOptions(maxNewTokens = 100_000, stopIds = emptyList())) {}
        assertEquals(FinishReason.context to bundle.manifest.entry.contextLength - 1, full.reason to full.tokens)
        assertTrue(full.tokensPerSecond!! > 0)
        val cancellation = Cancellation()
        val ended = session.generate(
            intArrayOf(1, 2),
            GenerateOptions(cancellation = cancellation, stopIds = emptyList()),
        ) {
            cancellation.cancel()
        }
        assertEquals(FinishReason.cancelled to 1, ended.reason to ended.tokens)
    }

    @Test
    fun `a seed gives the same answer again, and another seed another`() {
        fun answer(seed: Long) = ids(
            intArrayOf(5, 6),
            GenerateOptions(
                sampling = Sampling(2.0, 0, 1.0),
                seed = seed,
                maxNewTokens = 12,
                stopIds = emptyList(),
            ),
        )
        assertEquals(answer(3), answer(3))
        assertNotEquals(answer(3), answer(4))
    }

    @Test
    fun `what cannot be run is said in words`() {
        refused("cannot hold this conversation") {
            text(listOf(Message("user", "a b ".repeat(bundle.manifest.entry.contextLength))))
        }
        refused("does not have") { backend.step(bundle.manifest.tokens.vocabSize) }
        refused("at least one") { backend.prefill(intArrayOf()) }
        val entry = bundle.manifest.entry
        fun open(entry: ai.satchel.core.ModelEntry) = OrtBackend.open(bundle.with(entry)).close()
        refused("cannot run this bundle") { open(entry.copy(format = "coreml")) }
        refused("shows no pictures") { open(entry.copy(sees = true)) }
        refused("too old") { open(entry.copy(options = entry.options + ("minimum_onnxruntime" to "9.9"))) }
        refused("cannot read the model") { open(entry.copy(path = "tokenizer.json")) }
    }

    private fun refused(words: String, call: () -> Unit) {
        val error = assertThrows(SatchelError::class.java) { call() }
        assertTrue(words in error.message!!, error.message)
    }

    protected fun ids(prompt: IntArray, options: GenerateOptions): List<Int> = ArrayList<Int>().also { found ->
        session.generate(prompt, options) { found.add(it) }
    }

    private fun text(messages: List<Message>): String = StringBuilder().also { out ->
        session.chat(messages, GenerateOptions(sampling = GREEDY, maxNewTokens = 4)) { out.append(it) }
    }.toString()

    private fun Bundle.with(entry: ai.satchel.core.ModelEntry) =
        Bundle(source, manifest.copy(entry = entry), manifestBytes, id)

    /** The same bundle, whose golden logits lie in the wrong order. */
    private fun Bundle.withReversedLogits(): Bundle {
        val disk = source
        val altered = object : ai.satchel.core.BundleSource by disk {
            override fun open(path: String) = if (!path.endsWith("top_logits.f32")) {
                disk.open(path)
            } else {
                reversed(
                    disk.open(path).use {
                        it.readBytes()
                    },
                ).inputStream()
            }
        }
        return Bundle(altered, manifest, manifestBytes, id)
    }

    private fun reversed(bytes: ByteArray): ByteArray = bytes.toList().chunked(4).asReversed().flatten().toByteArray()

    private companion object {
        val HOST = Host(
            "A JVM",
            mapOf(
                "title" to "a JVM",
                "runtime" to "onnxruntime ${OrtBackend.version}",
                "threads" to 1,
            ),
        )
    }
}
