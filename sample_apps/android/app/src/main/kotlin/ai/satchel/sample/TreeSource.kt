package ai.satchel.sample

import ai.satchel.core.BundleSource
import ai.satchel.core.SUFFIX
import ai.satchel.core.bundleError
import android.content.ContentResolver
import android.net.Uri
import android.provider.DocumentsContract
import android.provider.DocumentsContract.Document
import java.io.FileNotFoundException
import java.io.IOException
import java.io.InputStream

/** A folder that a person has picked, through the storage access framework. */
class TreeSource(private val resolver: ContentResolver, private val tree: Uri) : BundleSource {
    private class Entry(val id: String, val name: String, val isFolder: Boolean, val bytes: Long)

    private val root = DocumentsContract.getTreeDocumentId(tree)
    private val documents: Map<String, Entry> by lazy { HashMap<String, Entry>().also { collect(root, "", it) } }

    override val name: String by lazy {
        val name = entries(DocumentsContract.buildDocumentUriUsingTree(tree, root)).firstOrNull()?.name ?: "picked"
        if (name.endsWith(SUFFIX)) {
            name
        } else {
            throw bundleError(
                "this folder is no bundle",
                got = name,
                wanted = "<model>-<device>$SUFFIX",
                hint = "choose the folder that `satchel export` wrote",
            )
        }
    }

    override fun list(): Map<String, Long> = documents.mapValues { it.value.bytes }

    override fun open(path: String): InputStream {
        val entry = documents[path] ?: throw FileNotFoundException("no file $path")
        return resolver.openInputStream(DocumentsContract.buildDocumentUriUsingTree(tree, entry.id))
            ?: throw IOException("$path cannot be opened")
    }

    private fun collect(folder: String, prefix: String, found: MutableMap<String, Entry>) {
        for (entry in entries(DocumentsContract.buildChildDocumentsUriUsingTree(tree, folder))) {
            if (entry.isFolder) {
                collect(entry.id, "$prefix${entry.name}/", found)
            } else {
                found[prefix + entry.name] =
                    entry
            }
        }
    }

    private fun entries(uri: Uri): List<Entry> {
        val columns =
            arrayOf(
                Document.COLUMN_DOCUMENT_ID,
                Document.COLUMN_DISPLAY_NAME,
                Document.COLUMN_MIME_TYPE,
                Document.COLUMN_SIZE,
            )
        val cursor =
            try {
                resolver.query(uri, columns, null, null, null)
            } catch (error: SecurityException) {
                throw IOException("the folder may not be read any more", error)
            } ?: throw IOException("the folder cannot be listed")
        return cursor.use {
            generateSequence { if (it.moveToNext()) it else null }
                .map { row ->
                    Entry(
                        row.getString(0),
                        row.getString(1),
                        row.getString(2) == Document.MIME_TYPE_DIR,
                        row.getLong(3),
                    )
                }
                .toList()
        }
    }
}
