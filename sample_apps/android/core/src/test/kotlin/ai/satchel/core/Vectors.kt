package ai.satchel.core

import java.io.File

/** What several tests need: the vectors that the Python runtime wrote, and its tiny bundle. */
object Vectors {
    /** Gradle and tools/test_android.sh say where; both start from this project's folder otherwise. */
    val folder = File(System.getProperty("satchel.vectors") ?: "../../vectors")

    fun bytes(path: String): ByteArray = File(folder, path).readBytes()

    fun json(path: String): Any? = parseJson(bytes(path), path, exactIntegers = false)

    val tinyBundle: File = File(folder, "bundle").listFiles().orEmpty().single { it.name.endsWith(".satchel") }
}

/** Reading of JSON in tests. */
@Suppress("UNCHECKED_CAST")
operator fun Any?.get(key: String): Any? = (this as Map<String, Any?>).getValue(key)

fun Any?.items(): List<Any?> = this as List<Any?>

fun Any?.ints(): List<Int> = items().map { (it as Long).toInt() }

fun Any?.doubles(): List<Double> = items().map { (it as Number).toDouble() }

/** A bundle in memory, which a test may damage. */
class MemorySource(val files: MutableMap<String, ByteArray>) : BundleSource {
    override val name = "memory.satchel"

    override fun list() = files.mapValues { it.value.size.toLong() }

    override fun open(path: String) = (files[path] ?: throw java.io.IOException("no file $path")).inputStream()

    companion object {
        fun of(folder: File): MemorySource {
            val source = FolderSource(folder)
            return MemorySource(
                source.list().keys.associateWithTo(HashMap()) { path ->
                    source.open(path).use { it.readBytes() }
                },
            )
        }
    }
}
