package ai.satchel.core

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.params.ParameterizedTest
import org.junit.jupiter.params.provider.ValueSource

class StrictJsonTest {
    @ParameterizedTest
    @ValueSource(
        strings = [
            "{\"a\":1,\"a\":2}", "[NaN]", "[Infinity]", "[1e999]", "[9007199254740993]",
            "[\"\\ud800\"]", "\ufeff1", "[1,]", "{\"a\":1,}",
            "{\"a\":{\"b\":1,\"\\u0062\":1}}", "", "[1] 2", "[01]", "[1.]", "[.5]", "[+1]",
            "['a']", "{a:1}", "[\"\\x\"]", "[\"\t\"]", "[tru]", "[\"a", "[",
        ],
    )
    fun `what is not JSON for every language is refused`(text: String) {
        val error = assertThrows(SatchelError::class.java) { parseJson(text.toByteArray(), "x.json") }
        assertTrue("x.json is not valid JSON" in error.message!!)
    }

    @Test
    fun `bytes that are not UTF-8 and deep nests are refused`() {
        for (bytes in listOf(byteArrayOf(0x22, 0xff.toByte(), 0x22), ByteArray(100_000) { '['.code.toByte() })) {
            assertThrows(SatchelError::class.java) { parseJson(bytes, "x.json") }
        }
    }

    @Test
    fun `values are read`() {
        val text = "[{\"a\":\"{\\\"a\\\":\"},{\"a\":{\"a\":1}}, -0.5e1, 12, " +
            "\"\\u00e9\\n\\ud83d\\ude00/\\/\", null, true ]"
        val wanted =
            listOf(
                mapOf("a" to "{\"a\":"),
                mapOf("a" to mapOf("a" to 1L)),
                -5.0,
                12L,
                "\u00e9\n\ud83d\ude00//",
                null,
                true,
            )
        assertEquals(wanted, parseJson(text.toByteArray(), "x"))
        assertEquals(1e20, parseJson("100000000000000000000".toByteArray(), "x", exactIntegers = false))
    }

    @Test
    fun `values are written as Python writes them`() {
        val value = mapOf(
            "b" to listOf(1L, 0.05010000000000001, 1e-5, 1.0, 1e16, 123456.0, -2.5e-7, 1e22),
            "a" to emptyMap<String, Any>(),
            "c" to "\u00e9\"\n\u0001",
            "d" to emptyList<Any>(),
        )
        val wanted =
            "{\n  \"a\": {},\n  \"b\": [\n    1,\n    0.05010000000000001,\n    1e-05,\n" +
                "    1.0,\n    1e+16,\n    123456.0,\n    -2.5e-07,\n    1e+22\n  ],\n" +
                "  \"c\": \"\u00e9\\\"\\n\\u0001\",\n  \"d\": []\n}\n"
        assertEquals(wanted, canonicalJson(value))
        assertThrows(IllegalArgumentException::class.java) { canonicalJson(Double.NaN) }
    }

    @ParameterizedTest
    @ValueSource(strings = ["../a", "/a", "a//b", "a/./b", "a\\b", "C:a", "a\u0001", ""])
    fun `a path that is not portable is refused`(path: String) {
        assertThrows(SatchelError::class.java) { checkPath(path) }
        assertThrows(SatchelError::class.java) { checkPath("x".repeat(256)) }
    }
}
