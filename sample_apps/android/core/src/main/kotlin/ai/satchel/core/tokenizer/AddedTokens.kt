package ai.satchel.core.tokenizer

/** A token that is found in a text before anything else is. */
internal class AddedToken(part: Part) {
    val id: Int = requireNotNull(part.integer("id")) { "an added token without an id" }
    val content: String = part.need("content")
    val special: Boolean = part.flag("special")
    val normalized: Boolean = part.flag("normalized", !special)
    val singleWord: Boolean = part.flag("single_word")
    val leftStrip: Boolean = part.flag("lstrip")
    val rightStrip: Boolean = part.flag("rstrip")
}

/** Text between added tokens (id null), or one of them. */
internal class Section(val start: Int, val text: String, val id: Int?)

/** Finds added tokens in a text: the leftmost first, of those at one place the longest. */
internal class AddedTokens(tokens: List<AddedToken>, content: (AddedToken) -> String) {
    private val byFirst: Map<Char, List<Pair<String, AddedToken>>> =
        tokens.map { content(it) to it }
            .filter { it.first.isNotEmpty() }
            .sortedByDescending { it.first.length }
            .groupBy { it.first[0] }

    /** The text in sections; with `literally`, special tokens are passed over. */
    fun split(text: String, literally: Boolean): List<Section> {
        val found = ArrayList<Section>()
        var done = 0
        var at = 0
        while (at < text.length) {
            val (content, token) = at(text, at) ?: (null to null)
            if (content == null || token == null) {
                at++
                continue
            }
            var (start, end) = at to at + content.length
            at = end
            if (literally && token.special || token.singleWord && !standsAlone(text, start, end)) continue
            if (token.leftStrip) while (start > done && isSpace(text[start - 1].code)) start--
            if (token.rightStrip) while (end < text.length && isSpace(text[end].code)) end++
            if (done < start) found.add(Section(done, text.substring(done, start), null))
            found.add(Section(start, content, token.id))
            done = end
            at = maxOf(at, end)
        }
        if (done < text.length) found.add(Section(done, text.substring(done), null))
        return found
    }

    private fun at(text: String, place: Int): Pair<String, AddedToken>? =
        byFirst[text[place]]?.firstOrNull { text.startsWith(it.first, place) }

    private fun standsAlone(text: String, start: Int, end: Int): Boolean =
        (start == 0 || !isWord(text.codePointBefore(start))) && (end == text.length || !isWord(text.codePointAt(end)))

    private fun isWord(code: Int): Boolean = Character.isLetterOrDigit(code) || code == '_'.code
}
