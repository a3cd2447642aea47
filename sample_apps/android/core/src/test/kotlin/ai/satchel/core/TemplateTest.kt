package ai.satchel.core

import ai.satchel.core.tokenizer.Tokenizer
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory
import java.io.File

class TemplateTest {
    private val vectors = Vectors.json("templates.json")
    private val tokenizer = Tokenizer.read(Vectors.bytes("tokenizers/${vectors["tokenizer"]}.json"), 100_000)

    @Suppress("UNCHECKED_CAST")
    private val special = vectors["special"] as Map<String, String>

    @TestFactory
    fun `conversations are rendered as the runtime renders them`(): List<DynamicTest> {
        val cases = vectors["cases"].items()
        assertEquals(35, cases.size)
        return cases.mapIndexed { i, case -> dynamicTest("${case["template"]}, case $i") { check(case) } }
    }

    private fun check(case: Any?) {
        val template = ChatTemplate(vectors["templates"][case["template"] as String] as String, special)
        val messages = case["messages"].items().map { Message(it["role"] as String, it["content"] as String) }
        if (case["rendered"] == null) {
            assertTrue(
                "refuses this conversation" in assertThrows(SatchelError::class.java) {
                    template.render(messages)
                }.message!!,
            )
        } else {
            assertEquals(case["rendered"], template.render(messages))
            assertEquals(case["ids"].ints(), encodeChat(tokenizer, template, messages).ids.toList())
        }
    }

    /** Small templates, with what Jinja makes of them; tests/sample_apps/test_android.py holds the file to it. */
    @TestFactory
    fun `templates are rendered as Jinja renders them`(): List<DynamicTest> {
        val folder = File(System.getProperty("satchel.resources") ?: "src/test/resources")
        val file = parseJson(File(folder, "jinja.json").readBytes(), "jinja.json")
        val cases = file["cases"].items()
        assertTrue(cases.size > 100)
        @Suppress("UNCHECKED_CAST")
        val variables = file["variables"] as Map<String, Any?>
        return cases.map { case -> dynamicTest(case["template"] as String) { checkJinja(case, variables) } }
    }

    private fun checkJinja(case: Any?, variables: Map<String, Any?>) {
        fun render() = ai.satchel.core.jinja.Template(case["template"] as String).render(variables)
        if (case["rendered"] != null) {
            assertEquals(case["rendered"], render())
        } else {
            assertThrows(ai.satchel.core.jinja.TemplateError::class.java) { render() }
        }
    }

    /** The constructs that the iOS app's interpreter is held to, likewise made by Jinja. */
    @TestFactory
    fun `the other app's templates are rendered as Jinja renders them`(): List<DynamicTest> {
        val file = Vectors.json("../ios/Tests/SatchelKitTests/Resources/jinja.json")
        val messages = file["messages"].items().map { Message(it["role"] as String, it["content"] as String) }
        val cases = file["cases"].items()
        assertTrue(cases.size > 200)
        @Suppress("UNCHECKED_CAST")
        val special = file["special"] as Map<String, String>
        return cases.map { case -> dynamicTest(case["source"] as String) { checkOther(case, messages, special) } }
    }

    private fun checkOther(case: Any?, messages: List<Message>, special: Map<String, String>) {
        fun render() = ChatTemplate(case["source"] as String, special).render(messages)
        if (case["rendered"] !=
            null
        ) {
            assertEquals(case["rendered"], render())
        } else {
            assertThrows(SatchelError::class.java) {
                render()
            }
        }
    }

    @Test
    fun `texts are cut at the leftmost, then the longest control token`() {
        val tokens = mapOf("<a>" to 1, "<a>b" to 2, "b" to 3)
        assertEquals(listOf("x" to null, "<a>b" to 2, "b" to 3, "<a>" to 1), splitAt("x<a>bb<a>", tokens))
    }

    @Test
    fun `what is no template or no conversation is refused`() {
        assertTrue(
            "not a valid template" in assertThrows(SatchelError::class.java) {
                ChatTemplate("{% for %}")
            }.message!!,
        )
        assertTrue(
            "list of messages" in assertThrows(SatchelError::class.java) {
                ChatTemplate("").render(emptyList())
            }.message!!,
        )
    }

    @Test
    fun `a template that runs on and on comes to an end`() {
        val loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
        for (source in listOf(
            loops,
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
            "{{ 'x' * 99999999 }}",
            "{{ 9 ** 99999 }}",
            "((".repeat(9999),
        )) {
            if (source.startsWith("((")) {
                ChatTemplate(source) // text
            } else {
                assertThrows(SatchelError::class.java) { ChatTemplate(source).render(listOf(Message("user", "x"))) }
            }
        }
        assertThrows(SatchelError::class.java) { ChatTemplate("{{ " + "(".repeat(9999)) }
    }
}
