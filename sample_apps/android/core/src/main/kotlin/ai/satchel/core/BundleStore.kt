package ai.satchel.core

import java.io.File
import java.io.FileOutputStream
import java.io.IOException
import java.util.UUID

const val SUFFIX = ".satchel"
private const val PARTIAL = ".incomplete-"

/** A bundle in a store. */
class StoredBundle(val folder: File, val bytes: Long) {
    val name: String get() = folder.name
}

/**
 * Bundles on the device, a folder each. They are checked as they are copied here; a folder that was not completed has
 * another name, and goes when the store is opened again.
 */
class BundleStore(val folder: File) {
    /** Removes what an earlier run left in the middle. */
    fun clean() {
        for (file in folder.listFiles().orEmpty()) if (file.name.startsWith(PARTIAL)) file.deleteRecursively()
    }

    /** Whatever is named as a bundle, by name. */
    fun list(): List<StoredBundle> =
        folder.listFiles { file -> file.isDirectory && file.name.endsWith(SUFFIX) && !file.name.startsWith(".") }
            .orEmpty()
            .sortedBy { it.name }
            .map { bundle -> StoredBundle(bundle, bundle.walkTopDown().filter { it.isFile }.sumOf { it.length() }) }

    /** Whether exactly this bundle is here: the same manifest.json, and all files of their sizes. */
    fun holds(source: BundleSource): Boolean {
        val place = place(source.name)
        if (!File(place, MANIFEST).isFile) return false
        return try {
            val known = source.open(MANIFEST).use { it.readBytes() }
            openBundle(FolderSource(place), OpenOptions(verify = false)).manifestBytes.contentEquals(known)
        } catch (error: IOException) {
            false
        } catch (error: SatchelError) {
            false
        }
    }

    /**
     * Copies a bundle here, checking every byte, and replaces one of its name when it is complete.
     *
     * @throws SatchelError a BundleError: it is not whole; an OutputError: it cannot be written
     * @throws Cancelled where a person has cancelled; nothing is left behind
     */
    fun add(
        source: BundleSource,
        progress: (Long, Long) -> Unit = { _, _ ->
        },
        cancellation: Cancellation = Cancellation(),
    ): File {
        val place = place(source.name)
        val partial = File(folder, PARTIAL + UUID.randomUUID())
        try {
            copy(source, partial, progress, cancellation)
            writing { replace(place, partial) }
            return place
        } finally {
            partial.deleteRecursively()
        }
    }

    fun remove(name: String) {
        place(name).deleteRecursively()
    }

    private fun place(name: String): File {
        val good = name.endsWith(SUFFIX) && name.length > SUFFIX.length && !name.startsWith(".") && name.none {
            it == '/' || it == '\\'
        }
        if (!good) throw usageError("this is no name of a bundle", got = name, wanted = "<model>-<device>$SUFFIX")
        return File(folder, name)
    }

    private fun copy(source: BundleSource, into: File, progress: (Long, Long) -> Unit, cancellation: Cancellation) {
        val writer = Writer(into)
        val bundle =
            writer.use {
                openBundle(
                    source,
                    OpenOptions(verify = true, progress, cancellation, onBytes = { entry, bytes, count ->
                        writer.write(entry.path, bytes, count)
                    }),
                )
            }
        for (entry in bundle.manifest.files) {
            if (entry.bytes == 0L) {
                writing {
                    File(into, entry.path).apply { parentFile?.mkdirs() }.createNewFile()
                }
            }
        }
        writing { File(into, MANIFEST).writeBytes(bundle.manifestBytes) }
    }

    private fun replace(place: File, partial: File) {
        val old = File(folder, PARTIAL + UUID.randomUUID())
        if (place.exists() && !place.renameTo(old)) throw IOException("$place is in use")
        if (!partial.renameTo(place)) {
            old.renameTo(place)
            throw IOException("$place cannot be made")
        }
        old.deleteRecursively()
    }

    /** Writes files one after the other; each is on the disk before the next begins. */
    private class Writer(private val folder: File) : AutoCloseable {
        private var path = ""
        private var stream: FileOutputStream? = null

        fun write(path: String, bytes: ByteArray, count: Int) = writing {
            if (path != this.path) open(path)
            stream?.write(bytes, 0, count)
        }

        private fun open(path: String) {
            close()
            val file = File(folder, path)
            file.parentFile?.mkdirs()
            stream = FileOutputStream(file)
            this.path = path
        }

        override fun close() {
            stream?.use { writing { it.fd.sync() } }
            stream = null
        }
    }
}

private fun <T> writing(write: () -> T): T = try {
    write()
} catch (error: IOException) {
    throw outputError(
        "the bundle cannot be stored on this device",
        got = reasonOf(error),
        hint = "free some space and try again",
    )
}
