package ai.satchel.core

const val SCHEMA_VERSION = 1L

/** An input or output of the model file; a String in the shape names a dynamic dimension. */
data class TensorSpec(val name: String, val shape: List<Any>, val dtype: String)

data class FileEntry(val path: String, val bytes: Long, val sha256: String)

data class ModelFacts(
    val modelId: String,
    val family: String,
    val author: String,
    val license: String,
    val parameters: Long,
)

data class PlanFacts(val device: String, val format: String, val contextLength: Int, val prefillLength: Int)

/** How the model file is called. */
data class ModelEntry(
    val format: String,
    val path: String,
    val contextLength: Int,
    val prefillLength: Int,
    val inputs: List<TensorSpec>,
    val outputs: List<TensorSpec>,
    val states: List<TensorSpec>,
    val options: Map<String, Any?>,
    /** Whether the bundle is of a model that sees, which this app does not run. */
    val sees: Boolean,
)

data class TokenRules(val vocabSize: Int, val bosId: Int?, val prependBos: Boolean, val stopIds: List<Int>)

data class GenerationDefaults(val maxNewTokens: Int, val sampling: Sampling)

/** manifest.json, as runtime/FORMAT.md describes it, as far as an app needs it; runtime/manifest.py is its twin. */
data class Manifest(
    val model: ModelFacts,
    val plan: PlanFacts,
    val entry: ModelEntry,
    /** Scheme of the weights, such as "palette". */
    val scheme: String,
    val tokens: TokenRules,
    val generation: GenerationDefaults,
    val files: List<FileEntry>,
)

/**
 * Bytes of manifest.json -> its content.
 *
 * @throws SatchelError a BundleError: of another schema, or not exactly as FORMAT.md says
 */
fun readManifest(bytes: ByteArray): Manifest {
    val value = parseJson(bytes, "manifest.json")
    val version = objectOf(value, "manifest.json")["schema_version"]
    if (version != SCHEMA_VERSION) {
        val hint = "use the app of the Satchel that wrote it, or export it again"
        throw bundleError(
            "the bundle is of an unknown schema",
            got = version ?: "none",
            wanted = SCHEMA_VERSION,
            hint = hint,
        )
    }
    return manifest(value, "manifest.json").also(::check)
}

/** Refuses what would lie outside the bundle, or is not read alike by every system. */
fun checkPath(path: String) {
    val parts = path.split("/")
    val bad = parts.any { it in listOf("", ".", "..") || it.toByteArray().size > 255 }
    if (bad || path.any { it in "\\:*?\"<>|" || it < ' ' || it == '\u007f' }) {
        throw bundleError("a path points outside the bundle or is not portable", got = path, wanted = "a/b.c")
    }
}

private val tensor = record("name", "shape", "dtype") { f ->
    val dimension: Decode<Any> = { value, where -> if (value is String) value else integer(value, where) }
    TensorSpec(f("name", text), f("shape", list(dimension)), f("dtype", text))
}

private val model =
    record("model_id", "family", "author", "license", "license_text", "source", "parameters") { f ->
        f("license_text", text)
        f("source", text)
        ModelFacts(
            f("model_id", text),
            f("family", text),
            f("author", text),
            f("license", text),
            f("parameters", integer),
        )
    }

private val rejection = record("value", "reason", "source") { f ->
    f("value", text).also { f("reason", text); f("source", text) }
}

private val choice = record("role", "value", "reason", "source", "rejected") { f ->
    val alternative: Decode<String> = { value, where -> if (value is String) value else rejection(value, where) }
    for (key in listOf("role", "value", "reason", "source")) f(key, text)
    f("rejected", list(alternative))
}

private val format = oneOf("coreml", "onnx", "executorch")

private val plan = record("device", "format", "context_length", "prefill_length", "choices") { f ->
    f("choices", list(choice))
    PlanFacts(f("device", text), f("format", format), f("context_length", small), f("prefill_length", small))
}

// Chunks are of Core ML alone, which no Android runs; models that see are refused by the backends.
private val entry =
    record(
        "format", "path", "context_length", "prefill_length", "inputs", "outputs", "states", "options",
        "?chunks", "?vision",
    ) { f ->
        ModelEntry(
            format = f("format", format),
            path = f("path", text),
            contextLength = f("context_length", small),
            prefillLength = f("prefill_length", small),
            inputs = f("inputs", list(tensor)),
            outputs = f("outputs", list(tensor)),
            states = f("states", list(tensor)),
            options = f("options", objectOf),
            sees = f.optional("vision", objectOf) != null,
        )
    }

private val selection = record("budget", "average_bits", "expected_kl", "correction", "counts") { f ->
    f("budget", text)
    for (key in listOf("average_bits", "expected_kl", "correction")) f(key, number)
    f("counts", dictionary(integer))
}

private val weights = record("scheme", "tensors", "?selection") { f ->
    f("tensors", dictionary(text))
    f.optional("selection", selection)
    f("scheme", text)
}

private val tokens = record("vocab_size", "bos_id", "prepend_bos", "stop_ids") { f ->
    TokenRules(f("vocab_size", small), f("bos_id", orNull(small)), f("prepend_bos", flag), f("stop_ids", list(small)))
}

private val generation = record("max_new_tokens", "temperature", "top_k", "top_p") { f ->
    val sampling = Sampling(f("temperature", number), f("top_k", small), f("top_p", number))
    GenerationDefaults(f("max_new_tokens", small), sampling)
}

private val file = record("path", "bytes", "sha256") { f ->
    FileEntry(f("path", text), f("bytes", integer), f("sha256", text))
}

private val manifest =
    record(
        "schema_version", "model", "plan", "entry", "weights", "tokens", "generation", "tools", "files", "?also_for",
    ) { f ->
        f("tools", dictionary(text))
        f.optional("also_for", list(text))
        Manifest(
            f("model", model),
            f("plan", plan),
            f("entry", entry),
            f("weights", weights),
            f("tokens", tokens),
            f("generation", generation),
            f("files", list(file)),
        )
    }

private fun check(manifest: Manifest) {
    val (_, planned, call, _, rules, _, files) = manifest
    checkFiles(files)
    checkPath(call.path)
    if (files.none { it.path == call.path || it.path.startsWith("${call.path}/") }) {
        throw bundleError("the model file is not among the files", got = call.path, hint = "export the bundle again")
    }
    if (call.format != planned.format || call.contextLength != planned.contextLength) {
        throw bundleError("the model entry and the plan disagree", got = listOf(call.format, call.contextLength))
    }
    if (call.contextLength < 1 || call.prefillLength < 0) {
        throw bundleError("a context or prefill length is out of range", got = call.contextLength, wanted = ">= 1")
    }
    val ids = rules.stopIds + listOfNotNull(rules.bosId)
    if (rules.vocabSize < 1 || ids.any { it !in 0 until rules.vocabSize }) {
        throw bundleError("token ids lie outside the vocabulary", got = ids, wanted = "0..${rules.vocabSize - 1}")
    }
    if (rules.prependBos &&
        rules.bosId == null
    ) {
        throw bundleError("the manifest wants a bos id in front and names none")
    }
}

private val SHA256 = Regex("[0-9a-f]{64}")

private fun checkFiles(files: List<FileEntry>) {
    val seen = HashSet<String>()
    for ((path, bytes, sha256) in files) {
        checkPath(path)
        if (path in listOf("manifest.json", "parity.json") || !seen.add(path.lowercase())) {
            throw bundleError("a file is listed twice or may not be listed", got = path)
        }
        if (bytes < 0 || !SHA256.matches(sha256)) {
            throw bundleError("size or sha256 of $path is impossible", got = listOf(bytes, sha256))
        }
    }
}
