package ai.satchel.core

import java.io.ByteArrayOutputStream
import java.io.File
import java.io.IOException
import java.io.InputStream
import java.nio.file.Files
import java.nio.file.LinkOption
import java.security.MessageDigest

/** Where a bundle's files come from: a folder, an app's assets, a folder that a person has picked. */
interface BundleSource {
    /** For messages and the list of bundles, such as "SmolLM2-135M-Instruct-pixel-9.satchel". */
    val name: String

    /** Every file with its size, manifest.json included. */
    fun list(): Map<String, Long>

    fun open(path: String): InputStream
}

/** A folder on disk, which may hold neither links nor special files. */
class FolderSource(val folder: File) : BundleSource {
    override val name: String = folder.name

    override fun list(): Map<String, Long> {
        val found = HashMap<String, Long>()
        for (file in folder.walkTopDown().drop(1)) {
            val path = file.toPath()
            if (Files.isDirectory(path, LinkOption.NOFOLLOW_LINKS)) continue
            val name = file.relativeTo(folder).invariantSeparatorsPath
            if (!Files.isRegularFile(path, LinkOption.NOFOLLOW_LINKS)) {
                throw bundleError("a link or special file in the bundle", got = name, wanted = "files and folders")
            }
            found[name] = file.length()
        }
        return found
    }

    override fun open(path: String): InputStream = File(folder, path).inputStream()
}

/** What opening a bundle tells and asks. */
class OpenOptions(
    /** Hash every file. Without it names and sizes are still checked: for a bundle that was verified when stored. */
    val verify: Boolean = true,
    /** Bytes done, and bytes in all. */
    val progress: (done: Long, total: Long) -> Unit = { _, _ -> },
    val cancellation: Cancellation = Cancellation(),
    /** Given each piece of each file as it is read, so that one reading serves for checking and for storing. */
    val onBytes: (entry: FileEntry, bytes: ByteArray, count: Int) -> Unit = { _, _, _ -> },
)

const val MANIFEST = "manifest.json"
private val UNLISTED = setOf(MANIFEST, "parity.json")
private const val IGNORED = ".DS_Store" // left by the Finder wherever it looks
private const val LARGEST_MANIFEST = 16 shl 20 // bytes; a real one has some 60 kB
private const val LARGEST_READ = 256L shl 20 // bytes of a file that is read whole; models are opened by their path
private const val BLOCK = 1 shl 20

/** An opened bundle. */
class Bundle(
    val source: BundleSource,
    val manifest: Manifest,
    val manifestBytes: ByteArray,
    /** sha256 of manifest.json, which stands for the whole bundle. */
    val id: String,
) {
    private val files = manifest.files.associateBy { it.path }

    /** Bytes of all listed files. */
    val bytes: Long get() = manifest.files.sumOf { it.bytes }

    fun has(path: String): Boolean = path in files

    /** A listed file, whole; a BundleError if there is none, or not of its size. */
    fun read(path: String): ByteArray {
        val entry =
            files[path]
                ?: throw bundleError("the bundle has no such file", got = path, hint = "export the bundle again")
        if (entry.bytes >
            LARGEST_READ
        ) {
            throw bundleError("$path is too large to be read", got = entry.bytes, wanted = LARGEST_READ)
        }
        val content = reading(entry) { source.open(path).use { it.readBytes() } }
        if (content.size.toLong() != entry.bytes) throw altered(entry, "size", content.size, entry.bytes)
        return content
    }

    /** A listed UTF-8 file, or null if the bundle has none of that name. */
    fun text(path: String): String? {
        if (!has(path)) return null
        try {
            return decodeUtf8(read(path))
        } catch (error: IllegalArgumentException) {
            throw bundleError("$path cannot be read as text", got = reasonOf(error), hint = "export the bundle again")
        }
    }

    /** The path of a listed file on disk, for runtimes that open files themselves. */
    fun file(path: String): File {
        val folder = (source as? FolderSource)?.folder
            ?: throw usageError(
                "the bundle has to be in a folder to be run",
                got = source.name,
                hint = "store it first",
            )
        return File(folder, path)
    }
}

/**
 * Opens a bundle and checks that it is whole. Nothing in it is executed. See runtime/FORMAT.md.
 *
 * @throws SatchelError a BundleError
 * @throws Cancelled where a person has cancelled
 */
fun openBundle(source: BundleSource, options: OpenOptions = OpenOptions()): Bundle {
    val bytes = readManifestBytes(source)
    val manifest = readManifest(bytes)
    checkNames(source.list(), manifest.files)
    val bundle = Bundle(source, manifest, bytes, sha256().digest(bytes).hexadecimal())
    if (!options.verify) return bundle
    var done = 0L
    options.progress(0, bundle.bytes)
    for (entry in manifest.files) {
        verify(source, entry, options) { count -> options.progress(done + count, bundle.bytes) }
        done += entry.bytes
    }
    return bundle
}

private fun verify(source: BundleSource, entry: FileEntry, options: OpenOptions, progress: (Long) -> Unit) {
    val digest = sha256()
    val block = ByteArray(BLOCK)
    var size = 0L
    reading(entry) { source.open(entry.path) }.use { stream ->
        while (true) {
            options.cancellation.check()
            val count = reading(entry) { stream.read(block) }
            if (count < 0) break
            size += count
            if (size > entry.bytes) throw altered(entry, "size", "more", entry.bytes)
            digest.update(block, 0, count)
            options.onBytes(entry, block, count)
            progress(size)
        }
    }
    if (size != entry.bytes) throw altered(entry, "size", size, entry.bytes)
    val found = digest.digest().hexadecimal()
    if (found != entry.sha256) throw altered(entry, "sha256", found, entry.sha256)
}

private fun readManifestBytes(source: BundleSource): ByteArray {
    val hint = "give the folder <model>-<device>.satchel that `satchel export` wrote"
    val bytes =
        try {
            source.open(MANIFEST).use { upTo(LARGEST_MANIFEST, it) }
        } catch (error: IOException) {
            throw bundleError("not a bundle: manifest.json cannot be read", got = reasonOf(error), hint = hint)
        }
    return bytes
        ?: throw bundleError("manifest.json is too large", wanted = "at most $LARGEST_MANIFEST bytes", hint = hint)
}

/** All bytes of a stream, or null if there are more. */
private fun upTo(limit: Int, stream: InputStream): ByteArray? {
    val found = ByteArrayOutputStream()
    val block = ByteArray(1 shl 16)
    while (found.size() <= limit) {
        val count = stream.read(block)
        if (count < 0) return found.toByteArray()
        found.write(block, 0, count)
    }
    return null
}

private fun checkNames(found: Map<String, Long>, files: List<FileEntry>) {
    val hint = "copy the bundle again, or export it again"
    val missing = files.map { it.path }.filter { it !in found }
    if (missing.isNotEmpty()) {
        throw bundleError(
            "files are missing from the bundle",
            got = "no ${missing.take(5)}",
            hint = hint,
        )
    }
    val extra = found.keys - files.map { it.path }.toSet() - UNLISTED
    val strange = extra.filter { it.substringAfterLast('/') != IGNORED }.sorted()
    if (strange.isNotEmpty()) {
        throw bundleError(
            "files that the manifest does not list",
            got = strange.take(5),
            hint = hint,
        )
    }
    for (entry in files) {
        if (found[entry.path] !=
            entry.bytes
        ) {
            throw altered(entry, "size", found[entry.path], entry.bytes)
        }
    }
}

private fun <T> reading(entry: FileEntry, read: () -> T): T = try {
    read()
} catch (error: IOException) {
    throw bundleError("${entry.path} cannot be read", got = reasonOf(error), hint = "copy the bundle again")
}

private fun altered(entry: FileEntry, what: String, got: Any?, wanted: Any): SatchelError {
    val hint = "the file was altered or damaged: copy the bundle again, or export it again"
    return bundleError("${entry.path}: its $what is not the manifest's", got = got, wanted = wanted, hint = hint)
}

private fun sha256(): MessageDigest = MessageDigest.getInstance("SHA-256")

private fun ByteArray.hexadecimal(): String = joinToString("") { "%02x".format(it) }
