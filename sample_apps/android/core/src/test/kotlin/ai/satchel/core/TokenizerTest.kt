package ai.satchel.core

import ai.satchel.core.tokenizer.Tokenizer
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.TestFactory
import java.io.File

/** Every text of every tokenizer, as the Python library has it. */
class TokenizerTest {
    private val names = File(Vectors.folder, "tokens").list().orEmpty().map { it.removeSuffix(".json") }.sorted()

    @TestFactory
    fun tokenizers(): List<DynamicTest> {
        assertEquals(7, names.size)
        return names.flatMap { name ->
            val tokenizer = Tokenizer.read(Vectors.bytes("tokenizers/$name.json"), 100_000)
            val cases = Vectors.json("tokens/$name.json").items()
            assertEquals(200, cases.size)
            cases.mapIndexed { i, case -> dynamicTest("$name, text $i") { check(tokenizer, case) } }
        }
    }

    private fun check(tokenizer: Tokenizer, case: Any?) {
        val text = case["text"] as String
        val ids = case["ids"].ints()
        assertEquals(ids, tokenizer.encode(text).toList(), text)
        assertEquals(case["decoded"], tokenizer.decode(ids), text)
        val stream = TextStream(tokenizer::decode)
        assertEquals(case["pieces"], ids.map(stream::push) + stream.flush(), text)
        val literal = case["literal"]
        if (literal != null) {
            assertEquals(literal.ints(), tokenizer.encodeLiterally(text).toList(), text)
        } else {
            assertThrows(SatchelError::class.java, { tokenizer.encodeLiterally(text) }, text)
        }
    }
}
