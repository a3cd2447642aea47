package ai.satchel.core.tokenizer

/** A piece of text between added tokens; `first` if it begins where the whole text begins. */
internal data class Piece(val text: String, val first: Boolean)

internal typealias PreTokenize = (Piece) -> List<Piece>

private const val GPT2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

/** Throws IllegalArgumentException for a pre-tokenizer that is not known here. */
internal fun preTokenizer(part: Part?): PreTokenize {
    if (part == null) return { listOf(it) }
    return when (part.type) {
        "Sequence" -> {
            val all = part.parts("pretokenizers").map(::preTokenizer)
            return { piece -> all.fold(listOf(piece)) { pieces, next -> pieces.flatMap(next) } }
        }
        "ByteLevel" -> byteLevel(part.flag("add_prefix_space", true), part.flag("use_regex", true))
        "Split" -> splitting(part.pattern(), Behavior.named(part.need("behavior")), part.flag("invert"))
        "Digits" -> {
            val behavior = if (part.flag("individual_digits")) Behavior.Isolated else Behavior.Contiguous
            splitting(TextPattern.regex("\\p{N}"), behavior) // every number, such as a half or a Roman four
        }
        "Metaspace" -> metaspace(part)
        "Punctuation" -> {
            val behavior = Behavior.named(part.string("behavior") ?: "Isolated")
            splitting(TextPattern.regex("[\\p{P}$+<=>^`|~]"), behavior)
        }
        "Whitespace" -> splitting(TextPattern.regex("\\w+|[^\\w\\s]+"), Behavior.Removed, invert = true)
        "WhitespaceSplit" -> splitting(TextPattern.regex("\\s"), Behavior.Removed)
        else -> part.unknown("pre-tokenizer")
    }
}

/** What becomes of the separators. */
internal enum class Behavior {
    Removed,
    Isolated,
    MergedWithPrevious,
    MergedWithNext,
    Contiguous,
    ;

    companion object {
        fun named(name: String) = entries.find {
            it.name == name
        } ?: throw IllegalArgumentException("the behavior '$name'")
    }
}

private fun splitting(pattern: TextPattern, behavior: Behavior, invert: Boolean = false): PreTokenize = { piece ->
    val cut = cuts(pattern.find(piece.text), piece.text.length, invert)
    behaved(cut, behavior)
        .filter { it.start < it.end }
        .map { Piece(piece.text.substring(it.start, it.end), piece.first && it.start == 0) }
}

private class Cut(val start: Int, val end: Int, val separates: Boolean)

/** Separators and what is between them, the whole text together. */
private fun cuts(found: List<IntRange>, length: Int, invert: Boolean): List<Cut> = buildList {
    var done = 0
    for (range in found) {
        if (range.first > done) add(Cut(done, range.first, invert))
        if (!range.isEmpty()) add(Cut(range.first, range.last + 1, !invert))
        done = maxOf(done, range.last + 1)
    }
    if (done < length) add(Cut(done, length, invert))
}

private fun behaved(cuts: List<Cut>, behavior: Behavior): List<Cut> = when (behavior) {
    Behavior.Isolated -> cuts
    Behavior.Removed -> cuts.filter { !it.separates }
    Behavior.Contiguous -> joined(cuts) { before, cut -> before.separates == cut.separates }
    Behavior.MergedWithPrevious -> joined(cuts) { before, cut -> cut.separates && !before.separates }
    Behavior.MergedWithNext -> joined(cuts) { before, cut -> before.separates && !cut.separates }
}

private fun joined(cuts: List<Cut>, join: (Cut, Cut) -> Boolean): List<Cut> {
    val found = ArrayList<Cut>()
    var before: Cut? = null
    for (cut in cuts) {
        if (before != null &&
            join(before, cut)
        ) {
            found[found.lastIndex] = Cut(found.last().start, cut.end, cut.separates)
        } else {
            found.add(cut)
        }
        before = cut
    }
    return found
}

private fun byteLevel(prefixSpace: Boolean, ownRegex: Boolean): PreTokenize {
    val split = if (ownRegex) splitting(TextPattern.regex(GPT2), Behavior.Isolated) else { piece -> listOf(piece) }
    return { piece ->
        val text = if (prefixSpace && !piece.text.startsWith(" ")) " ${piece.text}" else piece.text
        split(Piece(text, piece.first)).map { Piece(ByteLevel.encode(it.text), it.first) }
    }
}

private fun metaspace(part: Part): PreTokenize {
    val mark = part.string("replacement") ?: "\u2581"
    val scheme = prependScheme(part)
    val split = if (part.flag("split", true)) splitting(TextPattern.literal(mark), Behavior.MergedWithNext) else null
    return { piece ->
        val marked = piece.text.replace(" ", mark)
        val prepend = scheme == "always" || scheme == "first" && piece.first
        val text = if (prepend && !marked.startsWith(mark)) mark + marked else marked
        Piece(text, piece.first).let { split?.invoke(it) ?: listOf(it) }
    }
}

/** "always", "first" or "never"; older files have a flag. */
internal fun prependScheme(part: Part): String =
    part.string("prepend_scheme") ?: if (part.flag("add_prefix_space", true)) "always" else "never"
