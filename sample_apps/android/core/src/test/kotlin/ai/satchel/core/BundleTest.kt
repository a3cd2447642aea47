package ai.satchel.core

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory
import org.junit.jupiter.api.io.TempDir
import java.io.File
import java.nio.file.Files
import java.nio.file.Path

class BundleTest {
    private fun source() = MemorySource.of(Vectors.tinyBundle)

    private fun edited(source: MemorySource, edit: (String) -> String) {
        source.files[MANIFEST] = edit(String(source.files.getValue(MANIFEST))).toByteArray()
    }

    @Test
    fun `a whole bundle opens, with progress up to its size`() {
        val told = ArrayList<Pair<Long, Long>>()
        val bundle = openBundle(
            FolderSource(Vectors.tinyBundle),
            OpenOptions(progress = { done, total ->
                told.add(done to total)
            }),
        )
        assertEquals(bundle.bytes to bundle.bytes, told.last())
        assertEquals(told.sortedBy { it.first }, told)
        assertEquals("pixel-9", bundle.manifest.plan.device)
        assertTrue(Regex("[0-9a-f]{64}").matches(bundle.id))
    }

    @TestFactory
    fun `a damaged bundle is refused`(): List<DynamicTest> = listOf<Triple<String, (MemorySource) -> Unit, String>>(
        Triple("without a manifest", { it.files.remove(MANIFEST) }, "not a bundle: manifest.json cannot be read"),
        Triple("with a file missing", {
            it.files.remove("model.onnx")
        }, "files are missing from the bundle; got no [model.onnx]"),
        Triple("with a file too many", { it.files["x.txt"] = byteArrayOf(1) }, "that the manifest does not list"),
        Triple("with a bit turned", {
            it.files.getValue("model.onnx.data")[5]++
        }, "model.onnx.data: its sha256 is not"),
        Triple("cut short", { it.files["LICENSE"] = byteArrayOf() }, "LICENSE: its size is not the manifest's"),
        Triple("of a later schema", {
            edited(it) { t -> t.replace("\"schema_version\": 1", "\"schema_version\": 2") }
        }, "unknown schema"),
        Triple("with an unknown key", {
            edited(it) { t -> t.replace("\"bos_id\"", "\"bos\": 1,\n\"bos_id\"") }
        }, "unknown keys in manifest.json.tokens"),
        Triple("with a key missing", {
            edited(it) { t -> t.replace(Regex("\"prepend_bos\": \\w+,"), "") }
        }, "keys missing from manifest.json.tokens"),
        Triple("with a repeated key", {
            edited(it) { t -> t.replace("\"tokens\": {", "\"model\": 1, \"tokens\": {") }
        }, "occurs twice"),
        Triple("with a path outside", {
            edited(it) { t -> t.replace("\"path\": \"LICENSE\"", "\"path\": \"../LICENSE\"") }
        }, "outside the bundle"),
        Triple("with a manifest cut short", { edited(it) { t -> t.take(500) } }, "manifest.json is not valid JSON"),
        Triple("with a stop id outside", {
            edited(it) { t -> t.replace(Regex("\"stop_ids\": \\["), "\"stop_ids\": [320, ") }
        }, "outside the vocabulary"),
    ).map { (name, damage, words) ->
        dynamicTest(name) {
            val error = assertThrows(SatchelError::class.java) { openBundle(source().also(damage)) }
            assertEquals(ErrorKind.BundleError, error.kind)
            assertTrue(words in error.message!!, error.message)
        }
    }

    @Test
    fun `what the Finder leaves is passed over`() {
        openBundle(source().also { it.files["golden/.DS_Store"] = byteArrayOf(1) })
    }

    @Test
    fun `a verified bundle is told by names and sizes`() {
        val quick = OpenOptions(verify = false)
        openBundle(source().also { it.files.getValue("LICENSE")[0]++ }, quick)
        assertThrows(SatchelError::class.java) {
            openBundle(source().also { it.files["LICENSE"] = byteArrayOf() }, quick)
        }
    }

    @Test
    fun `links in a folder are refused`(@TempDir folder: Path) {
        val copy = folder.resolve("a.satchel").toFile()
        Vectors.tinyBundle.copyRecursively(copy)
        File(copy, "LICENSE").delete()
        Files.createSymbolicLink(copy.toPath().resolve("LICENSE"), Path.of("README.md"))
        assertTrue("link" in assertThrows(SatchelError::class.java) { openBundle(FolderSource(copy)) }.message!!)
    }

    @Test
    fun `a store keeps bundles whole`(@TempDir folder: File) {
        val store = BundleStore(folder)
        val source = source()
        assertFalse(store.holds(source))
        val place = store.add(source)
        assertEquals("memory.satchel", place.name)
        assertTrue(store.holds(source))
        openBundle(FolderSource(place))
        assertEquals(
            source.files.values.sumOf {
                it.size.toLong()
            },
            store.list().single().bytes + source.files.getValue("parity.json").size,
        )

        val damaged = source().also { it.files.getValue("model.onnx.data")[5]++ }
        assertThrows(SatchelError::class.java) { store.add(damaged) }
        val cancellation = Cancellation()
        assertThrows(Cancelled::class.java) { store.add(source, { _, _ -> cancellation.cancel() }, cancellation) }
        openBundle(FolderSource(place))
        assertEquals(listOf("memory.satchel"), folder.list()!!.toList())

        store.add(source().also { edited(it) { text -> text + "\n" } }) // another manifest takes its place
        assertFalse(store.holds(source))
        File(folder, ".incomplete-x").mkdirs()
        store.clean()
        store.remove("memory.satchel")
        assertEquals(0, folder.list()!!.size)
        for (name in listOf("../x.satchel", "x", ".satchel", ".x.satchel")) {
            assertThrows(SatchelError::class.java) {
                store.remove(name)
            }
        }
    }

    @Test
    fun `chats are kept, the latest first`(@TempDir folder: File) {
        val history = ChatHistory(File(folder, "chats.json"))
        assertEquals(emptyList<Chat>(), history.read())
        val first = Chat.new("m").copy(messages = listOf(Message("user", "h\u00e9llo \"\n\ud83d\ude00")))
        history.save(first)
        for (i in 1..120) history.save(Chat.new("m"))
        history.save(first)
        assertEquals(100, history.read().size)
        assertEquals(first, history.read().first())
        history.delete(first.id)
        assertEquals(99, history.read().size)
        File(folder, "chats.json").writeText("[{]")
        assertEquals(emptyList<Chat>(), history.read())
    }

    @Test
    fun `memory is what Linux says`() {
        val status = File.createTempFile("status", "")
        status.writeText("VmPeak:\t 9 kB\nVmHWM:\t 2048 kB\nVmRSS:\t 1024 kB\n")
        assertEquals(1048576L to 2097152L, Memory.read(status).let { it!!.resident to it.peak })
        assertEquals(null, Memory.read(File("/nowhere")))
    }
}
