package ai.satchel.sample

import ai.satchel.core.Cancellation
import android.os.Handler
import android.os.Looper
import java.util.concurrent.Executors

/** One thread for all that takes time: there is one model, with one cache. What it tells is told on the main thread. */
class Worker {
    private val thread = Executors.newSingleThreadExecutor { Thread(it, "satchel") }
    private val main = Handler(Looper.getMainLooper())

    /** Work under way. */
    inner class Task internal constructor() {
        val cancellation = Cancellation()

        /** Runs something on the main thread, after what was told before. */
        fun tell(what: () -> Unit) {
            main.post(what)
        }
    }

    /** Starts work; one of `done` and `failed` is called on the main thread at its end. */
    fun <T> start(work: (Task) -> T, done: (T) -> Unit, failed: (Throwable) -> Unit): Task {
        val task = Task()
        thread.execute {
            try {
                task.cancellation.check()
                val result = work(task)
                main.post { done(result) }
            } catch (error: Exception) {
                main.post { failed(error) }
            } catch (error: OutOfMemoryError) {
                main.post { failed(error) }
            } catch (error: LinkageError) { // a native library that is not there, or not for this device
                main.post { failed(error) }
            }
        }
        return task
    }
}
