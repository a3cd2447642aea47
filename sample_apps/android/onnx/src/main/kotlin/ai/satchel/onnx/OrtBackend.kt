package ai.satchel.onnx

import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OnnxTensorLike
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtException
import ai.onnxruntime.OrtLoggingLevel
import ai.onnxruntime.OrtSession
import ai.satchel.core.Backend
import ai.satchel.core.Bundle
import ai.satchel.core.ModelEntry
import ai.satchel.core.SatchelError
import ai.satchel.core.formatError
import ai.satchel.core.reasonOf
import ai.satchel.core.usageError
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer
import java.nio.LongBuffer

private const val PAST = "past_key_values."
private const val PRESENT = "present."
private const val LOGITS = "logits"

/**
 * Runs model.onnx by ONNX Runtime's Java API, on a JVM as on Android. runtime/backends/onnx.py is its twin.
 *
 * Past and present are one buffer of `context_length` ids each, given as input and as output, into which the graph
 * appends in place.
 */
class OrtBackend private constructor(private val session: OrtSession, private val entry: ModelEntry) : Backend {
    override var position = 0
        private set
    private val environment = OrtEnvironment.getEnvironment()
    private val vocabulary = vocabularyOf(entry)
    private val cache = HashMap<String, OnnxTensor>()
    private val logits: FloatBuffer
    private val outputs = HashMap<String, OnnxTensor>()
    private val mask: LongBuffer

    init {
        val context = entry.contextLength
        for (spec in entry.inputs.filter { it.name.startsWith(PAST) }) {
            val shape = longArrayOf(1, spec.shape[1] as Long, context.toLong(), spec.shape[3] as Long)
            val tensor = OnnxTensor.createTensor(
                environment,
                direct(shape.fold(1L, Long::times) * 4).asFloatBuffer(),
                shape,
            )
            cache[spec.name] = tensor
            outputs[spec.name.replace(PAST, PRESENT)] = tensor
        }
        logits = direct(4L * vocabulary).asFloatBuffer()
        outputs[LOGITS] = OnnxTensor.createTensor(environment, logits, longArrayOf(1, 1, vocabulary.toLong()))
        mask = direct(8L * context).asLongBuffer().apply { repeat(context) { put(it, 1) } }
    }

    override fun reset() {
        position = 0 // what lies beyond it is never read
    }

    override fun prefill(ids: IntArray): FloatArray {
        if (ids.isEmpty()) throw usageError("no tokens to prefill", wanted = "at least one")
        return run(ids)
    }

    override fun step(id: Int): FloatArray = run(intArrayOf(id))

    override fun close() {
        for (tensor in outputs.values) tensor.close()
        session.close()
    }

    private fun run(ids: IntArray): FloatArray {
        val total = checked(ids)
        try {
            call(ids, total)
        } catch (error: OrtException) {
            throw formatError("ONNX Runtime failed to run the model", got = reasonOf(error), hint = hintFor(error))
        }
        position = total
        return FloatArray(vocabulary).also { logits.duplicate().apply { rewind() }.get(it) }
    }

    private fun call(ids: IntArray, total: Int) {
        val given = direct(8L * ids.size).asLongBuffer().apply { for ((i, id) in ids.withIndex()) put(i, id.toLong()) }
        val ones = mask.duplicate().apply { rewind(); limit(total) }.slice()
        OnnxTensor.createTensor(environment, given, longArrayOf(1, ids.size.toLong())).use { input ->
            OnnxTensor.createTensor(environment, ones, longArrayOf(1, total.toLong())).use { mask ->
                val inputs: Map<String, OnnxTensorLike> = cache + mapOf("input_ids" to input, "attention_mask" to mask)
                session.run(inputs, outputs).close()
            }
        }
    }

    /** How many ids the cache holds after these. */
    private fun checked(ids: IntArray): Int {
        val total = position + ids.size
        if (total > entry.contextLength) {
            val hint = "begin a new chat, shorten the prompt, or export with a larger --context"
            throw usageError(
                "more tokens than the cache holds",
                got = total,
                wanted = "at most ${entry.contextLength}",
                hint = hint,
            )
        }
        // The quantized embedding would read beyond its end.
        val bad = ids.firstOrNull { it !in 0 until vocabulary }
        if (bad !=
            null
        ) {
            throw usageError("a token that the model does not have", got = bad, wanted = "0 to ${vocabulary - 1}")
        }
        return total
    }

    companion object {
        /** Name for reports. */
        const val NAME = "onnxruntime"

        /** Version of the library. */
        val version: String get() = OrtEnvironment.getEnvironment().version

        /**
         * Loads the model from the bundle's folder.
         *
         * @param threads of the computation; by default ONNX Runtime's choice
         * @throws SatchelError a FormatError where it cannot be run
         */
        fun open(bundle: Bundle, threads: Int? = null): OrtBackend {
            val entry = bundle.manifest.entry
            checkRunnable(entry, version)
            val path = bundle.file(entry.path).path
            try {
                return OrtBackend(OrtEnvironment.getEnvironment().createSession(path, options(threads)), entry)
            } catch (error: OrtException) {
                throw formatError("ONNX Runtime cannot read the model", got = reasonOf(error), hint = hintFor(error))
            } catch (error: OutOfMemoryError) {
                throw formatError(
                    "there is too little memory for this model's cache",
                    hint = "export with a smaller --context",
                )
            }
        }

        private fun options(threads: Int?) = OrtSession.SessionOptions().apply {
            setSessionLogLevel(OrtLoggingLevel.ORT_LOGGING_LEVEL_FATAL) // what goes wrong is thrown
            if (threads != null) setIntraOpNumThreads(threads)
            // Since 1.27 a constant above 1 GiB is not folded: a large fp16 head would be widened again at every token.
            addConfigEntry("optimization.constant_folding_max_output_size_in_bytes", "0")
        }
    }
}

private fun direct(bytes: Long): ByteBuffer {
    if (bytes >
        Int.MAX_VALUE
    ) {
        throw usageError(
            "the context is too long for this device",
            got = "$bytes bytes a layer",
            hint = "export with a smaller --context",
        )
    }
    return ByteBuffer.allocateDirect(bytes.toInt()).order(ByteOrder.nativeOrder())
}

private fun vocabularyOf(entry: ModelEntry): Int {
    val last = entry.outputs.find { it.name == LOGITS }?.shape?.lastOrNull()
    return (last as? Long)?.toInt() ?: throw formatError(
        "the model's signature has no logits",
        got = entry.outputs.map {
            it.name
        },
    )
}

private fun checkRunnable(entry: ModelEntry, installed: String) {
    if (entry.format !=
        "onnx"
    ) {
        throw formatError("ONNX Runtime cannot run this bundle", got = entry.format, wanted = "onnx")
    }
    if (entry.sees) {
        throw formatError(
            "this app shows no pictures to a model",
            hint = "use a bundle of a model of text only",
        )
    }
    val wanted = entry.options["minimum_onnxruntime"]?.toString() ?: "0"
    if (older(installed, wanted)) {
        val reason = entry.options["minimum_onnxruntime_reason"]
        throw formatError(
            "ONNX Runtime is too old for this model",
            got = installed,
            wanted = "$wanted ($reason)",
            hint = "update the app",
        )
    }
}

private fun older(version: String, than: String): Boolean {
    val (a, b) = listOf(version, than).map { text -> text.split(".").map { it.toIntOrNull() ?: 0 } + listOf(0, 0) }
    return if (a[0] != b[0]) a[0] < b[0] else a[1] < b[1]
}

/** ONNX Runtime's messages name what is missing; this says what a person can do about it. */
private fun hintFor(error: OrtException): String {
    val message = error.message.orEmpty()
    if (Regex("alloc|memory", RegexOption.IGNORE_CASE).containsMatchIn(message)) {
        return "the device has too little memory for this model: close other apps, or export a smaller one (--max-size)"
    }
    if (Regex(
            "not implemented|not a registered function|could not find an implementation",
            RegexOption.IGNORE_CASE,
        ).containsMatchIn(message)
    ) {
        return "this ONNX Runtime lacks an operator of the model: update the app, or export with other --weights"
    }
    return "copy the bundle again, or export it again"
}
