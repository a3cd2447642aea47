package ai.satchel.sample

import ai.satchel.core.Backend
import ai.satchel.core.Bundle
import ai.satchel.core.ParityReport
import ai.satchel.core.ReplayOptions
import ai.satchel.core.Session
import ai.satchel.core.checkParity
import ai.satchel.core.formatError
import ai.satchel.onnx.OrtBackend

/** A bundle whose model is loaded. Of the worker's thread. */
class Engine private constructor(
    val session: Session,
    /** What runs the model, for reports: "onnxruntime" or "executorch". */
    private val run: String,
    /** The same with its version. */
    val runtime: String,
    val loadSeconds: Double,
    private val device: Device,
) : AutoCloseable {
    val bundle: Bundle get() = session.bundle

    /** Replays the golden prompts. deviceName: for the report; "" for the device's own. */
    fun parity(deviceName: String, options: ReplayOptions): ParityReport = try {
        checkParity(bundle, session.backend, device.host(deviceName, runtime), run, loadSeconds, options)
    } finally {
        session.forget() // what the cache holds now is of no conversation
    }

    override fun close() = session.close()

    companion object {
        /** Loads the model. Throws a FormatError where this device cannot run it. */
        fun load(bundle: Bundle, device: Device): Engine {
            val start = System.nanoTime()
            val (backend, run, runtime) = backend(bundle, device.threads)
            try {
                return Engine(Session.open(bundle, backend), run, runtime, (System.nanoTime() - start) / 1e9, device)
            } catch (error: Exception) {
                backend.close()
                throw error
            }
        }

        private fun backend(bundle: Bundle, threads: Int): Triple<Backend, String, String> =
            when (val format = bundle.manifest.entry.format) {
                "onnx" -> Triple(
                    OrtBackend.open(bundle, threads),
                    OrtBackend.NAME,
                    "${OrtBackend.NAME} ${OrtBackend.version}",
                )
                "executorch" -> Triple(
                    ExecutorchBackend.open(bundle, threads),
                    ExecutorchBackend.NAME,
                    ExecutorchBackend.NAME,
                )
                else -> {
                    val hint = "make one for Android: satchel export MODEL --device pixel-9"
                    throw formatError(
                        "Android cannot run this bundle",
                        got = format,
                        wanted = "onnx or executorch",
                        hint = hint,
                    )
                }
            }
    }
}
