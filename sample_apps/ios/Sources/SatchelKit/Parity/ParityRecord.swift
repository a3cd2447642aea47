/// The content of parity-<device>.json, with the keys of runtime/parity.py and runtime/parity_file.py.
struct ParityRecord {
    let bundle: ModelBundle
    /// Golden row at which each replayed prompt begins.
    let starts: [Int]
    let replay: Replay
    let rows: [ParityRow]
    let answers: [AnswerList]
    let judge: Judge
    let host: ParityHost
    let runtime: String
    let loadSeconds: Double

    /// As runtime/parity.py names what runs a format.
    private var run: String {
        switch bundle.manifest.entry.format {
        case .coreml: "framework"
        case .onnx: "onnxruntime"
        case .executorch: "executorch"
        }
    }

    func json() -> Json {
        let failures = rows.filter { !$0.passed }
        return object([
            ("schema_version", .integer(1)), ("passed", .bool(failures.isEmpty)), ("bundle", subject()),
            ("host", object([("device", .string(host.device)), ("runtime", .string(runtime))] + host.facts)),
            ("skipped_prompts", .integer(replay.skipped)), ("runs", .array([runJson()])),
            ("failures", .array(failures.map(failure))), ("timings", object([(run, timings())])),
        ])
    }

    private func subject() -> Json {
        let manifest = bundle.manifest
        return object([
            ("model", .string(manifest.model.id)), ("device", .string(manifest.device)),
            ("format", .string(manifest.entry.format.rawValue)), ("weights", .string(manifest.scheme)),
            ("bytes", .integer(bundle.bytes)), ("manifest", .string(bundle.id)),
        ])
    }

    private func runJson() -> Json {
        let comparisons = answers.map(\.comparison).map { comparison in
            let routes = ["decode", "prefill", "greedy"].map { route in
                (
                    route,
                    Json.array(
                        rows.filter { $0.comparison == comparison && $0.route == route }.map { object(figure($0)) })
                )
            }
            return (comparison.rawValue, object(routes))
        }
        let said = answers.map { of in
            (of.comparison.rawValue, Json.array(of.list.map { answer($0, judge.tie(of.comparison)) }))
        }
        return object([
            ("name", .string(run)), ("arithmetic", .string(judge.arithmetic.rawValue)),
            ("comparisons", object(comparisons)),
            ("answers", object(said)), ("positions", positions()),
        ])
    }

    private func figure(_ row: ParityRow) -> [(String, Json)] {
        let said: [(String, Json)] = [("figure", .string(row.figure)), ("value", number(row.value))]
        guard let limit = row.limit else { return said }
        let bound = limit.isMaximum ? "at_most" : "at_least"
        return said + [(bound, .number(limit.value)), ("reason", .string(limit.reason)), ("passed", .bool(row.passed))]
    }

    private func failure(_ row: ParityRow) -> Json {
        let place: [(String, Json)] = [
            ("run", .string(run)), ("comparison", .string(row.comparison.rawValue)), ("route", .string(row.route)),
        ]
        return object(place + figure(row) + [("next", .string(whereToLook(row)))])
    }

    private func answer(_ answer: Answer, _ tie: Double) -> Json {
        var said: [(String, Json)] = [
            ("prompt", .integer(answer.prompt)), ("agreed", .integer(answer.agreed)),
            ("steps", .integer(answer.ids.count)),
            ("ids", .array(answer.ids.map(Json.integer))),
        ]
        if let parted = answer.parted {
            said += [
                ("got", .integer(parted.got)), ("wanted", .integer(parted.wanted)), ("gap", number(parted.gap)),
                ("near_tie", .bool(parted.gap < tie)), ("runner_up", .bool(parted.isRunnerUp)),
            ]
        }
        return object(said)
    }

    /// What was found at each position of the decode route.
    private func positions() -> Json {
        let decode = replay.rows[.reference]?[.decode] ?? RowFigures()
        let kl = answers.map(\.comparison).map { comparison in
            (comparison.rawValue, numbers(replay.rows[comparison.set]?[.decode]?.kl ?? []))
        }
        return object([
            ("starts", .array(starts.map(Json.integer))), ("rows", .array(decode.rows.map(Json.integer))),
            ("best", .array(decode.best.map(Json.integer))), ("margin", numbers(decode.margin)),
            ("logits", numbers(decode.logits)), ("kl", object(kl)),
        ])
    }

    private func timings() -> Json {
        object([
            ("load_seconds", number(loadSeconds)), ("prefill_tokens_per_second", number(replay.rate(.prefill))),
            ("decode_tokens_per_second", number(replay.rate(.decode))),
        ])
    }

    /// The likeliest place of the fault, from which other figures of the report are good.
    private func whereToLook(_ row: ParityRow) -> String {
        let lowered = Set(rows.filter { !$0.passed && $0.comparison == .lowering }.map(\.route))
        if row.comparison == .quality {
            return lowered.isEmpty
                ? "the program is right and the weights are not good enough: "
                    + "try other --weights or more calibration text"
                : "look at the lowering first: this run does not even agree with the bundle's own weights"
        }
        if !lowered.contains("decode") {
            return "decode steps are right: look at the prefill function, its positions, mask and padding"
        }
        if !lowered.contains("prefill") {
            return "prefill is right: look at the decode function and at how it writes the cache"
        }
        return
            "both routes differ: compare `satchel inspect --weights` with another format's, then the ops of this format"
    }
}

private func object(_ entries: [(String, Json)]) -> Json { .object(JsonObject(entries)) }
private func number(_ value: Double?) -> Json { rounded(value).map(Json.number) ?? .null }
private func numbers(_ values: [Double]) -> Json { .array(values.map { number($0) }) }
