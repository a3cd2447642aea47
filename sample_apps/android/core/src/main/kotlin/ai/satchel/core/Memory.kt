package ai.satchel.core

import java.io.File
import java.io.IOException

/** What this process holds of the device's memory, as Linux counts it. */
class Memory(
    /** Bytes now. */
    val resident: Long,
    /** The most bytes since the process began. */
    val peak: Long,
) {
    companion object {
        /** Null where the system does not tell. */
        fun read(status: File = File("/proc/self/status")): Memory? {
            val lines =
                try {
                    status.readLines()
                } catch (error: IOException) {
                    return null
                }
            fun bytes(key: String): Long? =
                lines.firstOrNull { it.startsWith("$key:") }?.filter { it.isDigit() }?.toLongOrNull()?.times(1024)
            return Memory(bytes("VmRSS") ?: return null, bytes("VmHWM") ?: return null)
        }
    }
}
