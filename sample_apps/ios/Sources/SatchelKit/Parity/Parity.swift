import Foundation

/// One figure, with what was allowed; no limit where the figure is for information.
public struct ParityRow: Sendable {
    public let comparison: Comparison
    /// "decode", "prefill" or "greedy".
    public let route: String
    public let figure: String
    public let value: Double?
    public let limit: Limit?

    public var passed: Bool { limit?.allows(value) ?? true }
}

/// What ran the model.
public struct ParityHost: Sendable {
    /// For the file's name, such as "iphone16-1-ios-18.1".
    public let device: String
    /// Whatever else is known: "title", "machine", "os", "memory_gb", "compute_units" and so on.
    public let facts: [(name: String, value: Json)]

    public init(device: String, facts: [(name: String, value: Json)] = []) {
        self.device = fileName(device)
        self.facts = facts
    }
}

/// The greedy answers to all prompts, beside those of one golden set.
public struct AnswerList: Sendable {
    public let comparison: Comparison
    public let list: [Answer]
}

public struct ParityReport: Sendable {
    public let rows: [ParityRow]
    public let answers: [AnswerList]
    public let skipped: Int
    public let prefillRate: Double?
    public let decodeRate: Double?
    /// parity-<device>.json, and its content.
    public let fileName: String
    public let json: Data

    public var passed: Bool { rows.allSatisfy(\.passed) }
    public var failures: [ParityRow] { rows.filter { !$0.passed } }
}

/// Does this device say what the bundle's golden data say? runtime/parity.py is the twin.
///
/// prompts: only the first so many. progress: told the prompts that are done, and all, between any two calls; throws to
/// cancel. Throws a BundleError.
public func checkParity(
    _ bundle: ModelBundle, _ backend: any Backend, host: ParityHost, loadSeconds: Double, prompts: Int? = nil,
    progress: @escaping (Int, Int) throws -> Void = { _, _ in }
) throws -> ParityReport {
    let entry = bundle.manifest.entry
    let golden = try Golden(bundle)
    if let prompts, prompts < 1 {
        throw usageError("a number of prompts is out of range", got: prompts, wanted: ">= 1")
    }
    guard golden.prompts.prefix(prompts ?? .max).contains(where: { $0.ids.count <= entry.contextLength }) else {
        throw bundleError("no golden prompt fits the context", wanted: entry.contextLength)
    }
    let replay = try Replay(backend, golden, contextLength: entry.contextLength, prompts: prompts, progress: progress)
    let judge = try Judge(bundle.manifest)
    let comparisons = Comparison.allCases.filter { golden.sets[$0.set] != nil }
    let rows = comparisons.flatMap { judge.rows(replay, $0) }
    let answers = comparisons.map { AnswerList(comparison: $0, list: replay.answers[$0.set] ?? []) }
    let record = ParityRecord(
        bundle: bundle, starts: Array(golden.starts.prefix(prompts ?? .max)), replay: replay, rows: rows,
        answers: answers, judge: judge, host: host,
        runtime: backend.runtime, loadSeconds: loadSeconds)
    return ParityReport(
        rows: rows, answers: answers, skipped: replay.skipped, prefillRate: replay.rate(.prefill),
        decodeRate: replay.rate(.decode), fileName: "parity-\(host.device).json", json: canonicalJson(record.json()))
}

/// Holds figures to their limits.
struct Judge {
    let arithmetic: Arithmetic
    private let scheme: String
    private let limits: Limits

    init(_ manifest: Manifest) throws {
        scheme = manifest.scheme
        arithmetic = Arithmetic(format: manifest.entry.format, scheme: scheme)
        limits = try Limits()
    }

    func tie(_ comparison: Comparison) -> Double { limits.tie(comparison, arithmetic) }

    func rows(_ replay: Replay, _ comparison: Comparison) -> [ParityRow] {
        let allowed = limits.limits(comparison, arithmetic, scheme: scheme)
        var found: [(route: String, figures: Figures)] = Route.allCases.map { route in
            (route.rawValue, replay.rows[comparison.set]?[route]?.figures(tie: tie(comparison)) ?? [])
        }
        found.append(("greedy", greedyFigures(replay.answers[comparison.set] ?? [], tie(comparison))))
        return found.flatMap { route, figures in
            figures.map {
                ParityRow(
                    comparison: comparison, route: route, figure: $0.figure, value: $0.value, limit: allowed[$0.figure])
            }
        }
    }

    private func greedyFigures(_ answers: [Answer], _ tie: Double) -> Figures {
        let diverged = answers.map { $0.parted.map { $0.gap < tie ? 0.0 : 1 } ?? 0 }
        return [
            ("greedy_agreement", mean(answers.map { Double($0.agreed) / Double($0.ids.count) })),
            ("greedy_diverged", mean(diverged)), ("prompts", Double(answers.count)),
        ]
    }
}

/// A device's name as part of a file's: small letters, digits and hyphens.
public func fileName(_ text: String) -> String {
    let parts = text.lowercased().split { !($0.isASCII && ($0.isLetter || $0.isNumber)) }
    let name = parts.joined(separator: "-").prefix(60)
    return name.isEmpty ? "device" : String(name)
}
