package ai.satchel.sample

import ai.satchel.core.Host
import android.app.ActivityManager
import android.content.Context
import android.os.Build

private const val SOC_SINCE = 31
private const val MOST_THREADS = 4

/** What this device is, for Parity's file. */
class Device(private val context: Context) {
    /** Such as "Google Pixel 9". */
    val title: String
        get() = if (Build.MODEL.startsWith(Build.MANUFACTURER, ignoreCase = true)) {
            Build.MODEL
        } else {
            "${Build.MANUFACTURER.replaceFirstChar(Char::uppercaseChar)} ${Build.MODEL}"
        }

    /** Such as "Google Pixel 9 Android 16": figures change with the system's version. */
    val name: String get() = "$title Android ${Build.VERSION.RELEASE}"

    /** Threads for a model: decoding is bound by memory, and the slow cores would hold up the fast ones. */
    val threads: Int get() = Runtime.getRuntime().availableProcessors().coerceIn(1, MOST_THREADS)

    /** runtime: the library that ran the model, with its version. */
    fun host(name: String, runtime: String): Host = Host(
        name.ifBlank { this.name },
        mapOf(
            "title" to title,
            "os" to "Android ${Build.VERSION.RELEASE} (API ${Build.VERSION.SDK_INT})",
            "chip" to chip(),
            "machine" to Build.SUPPORTED_ABIS.firstOrNull(),
            "memory_gb" to memoryGigabytes(),
            "runtime" to runtime,
            "threads" to threads,
            "build" to Build.FINGERPRINT,
        ),
    )

    private fun chip(): String {
        if (Build.VERSION.SDK_INT < SOC_SINCE) return Build.HARDWARE
        return listOf("SOC_MANUFACTURER", "SOC_MODEL").joinToString(" ") {
            Build::class.java.getField(it).get(null).toString()
        }
    }

    private fun memoryGigabytes(): Double {
        val info = ActivityManager.MemoryInfo()
        (context.getSystemService(Context.ACTIVITY_SERVICE) as ActivityManager).getMemoryInfo(info)
        return Math.round(info.totalMem / (1 shl 30).toDouble() * 10) / 10.0
    }
}
