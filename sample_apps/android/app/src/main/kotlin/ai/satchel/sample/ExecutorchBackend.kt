package ai.satchel.sample

import ai.satchel.core.Backend
import ai.satchel.core.Bundle
import ai.satchel.core.ModelEntry
import ai.satchel.core.formatError
import ai.satchel.core.reasonOf
import ai.satchel.core.usageError
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor

/** Runs model.pte by ExecuTorch's Java API. runtime/backends/executorch.py is its twin. */
class ExecutorchBackend private constructor(private val module: Module, private val entry: ModelEntry) : Backend {
    override var position = 0
        private set
    private val method = entry.options["method"] as? String ?: "forward"
    private val longest = (entry.options["max_sequence"] as? Long)?.toInt() ?: entry.contextLength
    private val vocabulary =
        (entry.outputs.find { it.name == "logits" }?.shape?.lastOrNull() as? Long)?.toInt()
            ?: throw formatError("the model's signature has no logits", got = entry.outputs.map { it.name })

    override fun reset() {
        position = 0 // what lies beyond it is never read
    }

    override fun prefill(ids: IntArray): FloatArray {
        if (ids.isEmpty()) throw usageError("no tokens to prefill", wanted = "at least one")
        check(ids)
        var logits = FloatArray(0)
        for (start in ids.indices step longest) {
            val piece = ids.copyOfRange(start, minOf(start + longest, ids.size))
            logits = call(piece)
            position += piece.size
        }
        return logits
    }

    override fun step(id: Int): FloatArray = prefill(intArrayOf(id))

    override fun close() = module.destroy()

    private fun call(ids: IntArray): FloatArray {
        val tokens = Tensor.fromBlob(LongArray(ids.size) { ids[it].toLong() }, longArrayOf(1, ids.size.toLong()))
        val start = Tensor.fromBlob(longArrayOf(position.toLong()), longArrayOf(1))
        val outputs =
            try {
                module.execute(method, EValue.from(tokens), EValue.from(start))
            } catch (error: RuntimeException) {
                throw formatError("ExecuTorch failed to run the model", got = reasonOf(error))
            }
        val logits = outputs?.firstOrNull()?.toTensor()?.dataAsFloatArray
        if (logits?.size != vocabulary) {
            val hint = "export with another --context, or use the ONNX bundle"
            throw formatError("ExecuTorch gave no logits", got = logits?.size, wanted = vocabulary, hint = hint)
        }
        return logits
    }

    private fun check(ids: IntArray) {
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
        val bad = ids.firstOrNull { it !in 0 until vocabulary } // ExecuTorch's kernel would end the process
        if (bad !=
            null
        ) {
            throw usageError("a token that the model does not have", got = bad, wanted = "0 to ${vocabulary - 1}")
        }
    }

    companion object {
        /** Name for reports. */
        const val NAME = "executorch"

        /** Throws a FormatError where the model cannot be run here. */
        fun open(bundle: Bundle, threads: Int): ExecutorchBackend {
            val entry = bundle.manifest.entry
            if (entry.options["target"] == "coreml") {
                val hint = "export for an Android device: satchel export MODEL --device pixel-9 --format executorch"
                throw formatError("this bundle is for Apple devices", got = "coreml", wanted = "xnnpack", hint = hint)
            }
            if (entry.sees) {
                throw formatError(
                    "this app shows no pictures to a model",
                    hint = "use a bundle of a model of text only",
                )
            }
            val module =
                try {
                    Module.load(bundle.file(entry.path).path, Module.LOAD_MODE_MMAP, threads)
                } catch (error: RuntimeException) {
                    throw formatError(
                        "ExecuTorch cannot load the model",
                        got = reasonOf(error),
                        hint = "copy the bundle again, or export it again",
                    )
                }
            return ExecutorchBackend(module, entry)
        }
    }
}
