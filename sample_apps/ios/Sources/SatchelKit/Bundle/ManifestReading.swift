/// The keys of manifest.json, one function for each object.

func readManifest(_ value: Json) throws -> Manifest {
    let names = ["schema_version", "model", "plan", "entry", "weights", "tokens", "generation", "tools", "files"]
    let fields = try Fields(value, "manifest.json", names, optional: ["also_for"])
    _ = try fields.dictionary("tools", readText)
    let plan = try fields.nested("plan", readPlan)
    let entry = try fields.nested("entry", readEntry)
    guard entry.format == plan.format, entry.contextLength == plan.contextLength else {
        throw bundleError("the model entry and the plan disagree", got: (entry.format.rawValue, entry.contextLength))
    }
    let weights = try fields.nested("weights", readWeights)
    return Manifest(
        model: try fields.nested("model", readModel), device: plan.device, entry: entry, scheme: weights.scheme,
        matrices: weights.matrices, tokens: try fields.nested("tokens", readTokens),
        generation: try fields.nested("generation", readGeneration), files: try fields.list("files", readFile),
        alsoFor: fields.has("also_for") ? try fields.texts("also_for") : [])
}

private func readModel(_ value: Json, _ place: String) throws -> ModelInfo {
    let names = ["model_id", "family", "author", "license", "license_text", "source", "parameters"]
    let fields = try Fields(value, place, names)
    _ = try fields.text("source")
    return ModelInfo(
        id: try fields.text("model_id"), family: try fields.text("family"), author: try fields.text("author"),
        license: try fields.text("license"), licenseText: try fields.text("license_text"),
        parameters: try fields.integer("parameters"))
}

/// What of the plan must agree with the entry; its choices are read, and not kept.
private func readPlan(_ value: Json, _ place: String) throws -> (
    device: String, format: ModelFormat, contextLength: Int
) {
    let fields = try Fields(value, place, ["device", "format", "context_length", "prefill_length", "choices"])
    _ = try fields.integer("prefill_length")
    _ = try fields.list("choices", readChoice)
    return (try fields.text("device"), try fields.choice("format"), try fields.integer("context_length"))
}

private func readChoice(_ value: Json, _ place: String) throws {
    let fields = try Fields(value, place, ["role", "value", "reason", "source", "rejected"])
    for name in ["role", "value", "reason", "source"] { _ = try fields.text(name) }
    _ = try fields.list("rejected") { item, place in
        if item.string != nil { return }
        let rejection = try Fields(item, place, ["value", "reason", "source"])
        for name in ["value", "reason", "source"] { _ = try rejection.text(name) }
    }
}

private func readEntry(_ value: Json, _ place: String) throws -> ModelEntry {
    let names = ["format", "path", "context_length", "prefill_length", "inputs", "outputs", "states", "options"]
    let fields = try Fields(value, place, names, optional: ["chunks", "vision"])
    return ModelEntry(
        format: try fields.choice("format"), path: try fields.text("path"),
        contextLength: try fields.integer("context_length"), prefillLength: try fields.integer("prefill_length"),
        inputs: try fields.list("inputs", readTensor), outputs: try fields.list("outputs", readTensor),
        states: try fields.list("states", readTensor), options: try fields.object("options"),
        chunks: fields.has("chunks") ? try fields.list("chunks", readChunk) : nil,
        vision: fields.has("vision") ? .object(try fields.object("vision")) : nil)
}

private func readChunk(_ value: Json, _ place: String) throws -> ChunkEntry {
    let names = ["path", "functions", "first_layer", "layers", "inputs", "outputs", "states"]
    let fields = try Fields(value, place, names)
    let functions = try fields.dictionary("functions", readText)
    return ChunkEntry(
        path: try fields.text("path"),
        functions: Dictionary(uniqueKeysWithValues: functions.map { ($0.key, $0.value) }),
        firstLayer: try fields.integer("first_layer"), layers: try fields.integer("layers"),
        inputs: try fields.list("inputs", readTensor), outputs: try fields.list("outputs", readTensor),
        states: try fields.list("states", readTensor))
}

private func readTensor(_ value: Json, _ place: String) throws -> TensorSpec {
    let fields = try Fields(value, place, ["name", "shape", "dtype"])
    let shape = try fields.list("shape") { item, place in
        if let name = item.string { return TensorDimension.named(name) }
        return .fixed(try readInteger(item, place))
    }
    return TensorSpec(name: try fields.text("name"), shape: shape, dtype: try fields.text("dtype"))
}

private func readWeights(_ value: Json, _ place: String) throws -> (scheme: String, matrices: [String]) {
    let fields = try Fields(value, place, ["scheme", "tensors"], optional: ["selection"])
    if fields.has("selection") { try fields.nested("selection", checkSelection) }
    return (try fields.text("scheme"), try fields.dictionary("tensors", readText).map(\.key))
}

private func checkSelection(_ value: Json, _ place: String) throws {
    let fields = try Fields(value, place, ["budget", "average_bits", "expected_kl", "correction", "counts"])
    _ = try fields.text("budget")
    for name in ["average_bits", "expected_kl", "correction"] { _ = try fields.number(name) }
    _ = try fields.dictionary("counts", readInteger)
}

private func readTokens(_ value: Json, _ place: String) throws -> TokenRules {
    let fields = try Fields(value, place, ["vocab_size", "bos_id", "prepend_bos", "stop_ids"])
    return TokenRules(
        vocabSize: try fields.integer("vocab_size"), bosId: try fields.integerOrNull("bos_id"),
        prependBos: try fields.flag("prepend_bos"), stopIds: try fields.integers("stop_ids"))
}

private func readGeneration(_ value: Json, _ place: String) throws -> GenerationDefaults {
    let fields = try Fields(value, place, ["max_new_tokens", "temperature", "top_k", "top_p"])
    let sampling = Sampling(
        temperature: try fields.number("temperature"), topK: try fields.integer("top_k"),
        topP: try fields.number("top_p"))
    return GenerationDefaults(maxNewTokens: try fields.integer("max_new_tokens"), sampling: sampling)
}

private func readFile(_ value: Json, _ place: String) throws -> FileEntry {
    let fields = try Fields(value, place, ["path", "bytes", "sha256"])
    return FileEntry(
        path: try fields.text("path"), bytes: try fields.integer("bytes"), sha256: try fields.text("sha256"))
}
