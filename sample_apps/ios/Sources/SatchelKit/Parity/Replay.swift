import Foundation

public enum Route: String, CaseIterable, Sendable { case decode, prefill }

typealias Figures = [(figure: String, value: Double?)]

private let forced = 8  // decode steps after a prefill
private let kept = 4  // logits kept of each row, those of golden's best ids
private let largest = 1e30  // stands for infinity in figures, so that JSON can hold it

/// Figures of each row that a route gave, against one golden set.
struct RowFigures {
    private(set) var rows: [Int] = []
    private(set) var best: [Int] = []
    private(set) var margin: [Double] = []
    private(set) var logits: [Double] = []
    private(set) var kl: [Double] = []
    private var agrees: [Bool] = []
    private var gap: [Double] = []
    private var difference: [Double] = []

    mutating func add(_ set: Golden.Answers, top: Int, row: Int, _ candidate: [Float]) {
        let place = row * top..<(row + 1) * top
        let (ids, values) = (set.topIds[place], set.topLogits[place])
        let first = greedy(candidate)
        let second = candidate.indices.reduce(-Float.infinity) { $1 == first ? $0 : max($0, candidate[$1]) }
        rows.append(row)
        best.append(first)
        margin.append(Double(candidate[first] - second))
        logits += ids.prefix(kept).map { Double(candidate[Int($0)]) }
        kl.append(klFromTop(ids, values, set.restLogsumexp[row], candidate))
        agrees.append(first == Int(ids.first!))
        gap.append(top > 1 ? Double(values[values.startIndex] - values[values.startIndex + 1]) : .infinity)
        difference.append(largestDifference(ids, values, candidate))
    }

    /// tie: the gap below which another best id is a matter of rounding. NaN and infinity pass no limit.
    func figures(tie: Double) -> Figures {
        let bounded = kl.map(bound)
        let error = kl.allSatisfy(\.isFinite) ? standardError(kl, block: forced * 2) : .nan
        let excused = zip(agrees, gap).map { $0 || $1 < tie }
        return [
            ("kl_mean", mean(bounded)), ("kl_p99", percentile(bounded, 0.99)), ("kl_max", bounded.max()!),
            ("kl_standard_error", error.isFinite ? error : nil), ("top1", mean(agrees.map { $0 ? 1 : 0 })),
            ("top1_or_tie", mean(excused.map { $0 ? 1 : 0 })), ("difference_max", difference.map(bound).max()!),
            ("positions", Double(kl.count)),
        ]
    }
}

private func bound(_ value: Double) -> Double { value.isNaN ? largest : min(value, largest) }

/// A greedy answer beside a golden one.
public struct Answer: Sendable {
    public let prompt: Int
    /// Ids before the first that differs.
    public let agreed: Int
    /// The whole answer.
    public let ids: [Int]
    public let parted: Parted?

    /// The first ids that differ, by how much the golden model preferred its own, and whether `got` was its second.
    public struct Parted: Sendable {
        public let got: Int
        public let wanted: Int
        public let gap: Double
        public let isRunnerUp: Bool
    }
}

/// What a backend said to the golden prompts by every route that an app takes; runtime/replay.py is its twin.
///
/// decode: every id by a step, from an empty cache. prefill: the prompt in one call and in two, each followed by forced
/// steps, and the whole sequence in one. greedy: the prompt by prefill, then what the backend itself thinks best.
final class Replay {
    private(set) var rows: [Golden.SetName: [Route: RowFigures]] = [:]
    private(set) var answers: [Golden.SetName: [Answer]] = [:]
    private(set) var seconds: [Route: Double] = [:]
    private(set) var tokens: [Route: Int] = [:]
    /// Prompts that the context cannot hold.
    private(set) var skipped = 0

    private let backend: any Backend
    private let golden: Golden
    private let check: () throws -> Void  // throws to cancel

    /// progress: told after each prompt, and between any two calls; throws to cancel.
    init(
        _ backend: any Backend, _ golden: Golden, contextLength: Int, prompts: Int?,
        progress: @escaping (Int, Int) throws -> Void
    ) throws {
        let chosen = Array(golden.prompts.prefix(prompts ?? .max))
        var done = 0
        self.backend = backend
        self.golden = golden
        check = { try progress(done, chosen.count) }
        for (number, var prompt) in chosen.enumerated() {
            if prompt.ids.count > contextLength {
                skipped += 1
            } else {  // as much of the continuation as the cache holds; the last id needs no place
                prompt.continuation = Array(prompt.continuation.prefix(contextLength - prompt.ids.count + 1))
                try replay(prompt, number, start: golden.starts[number])
            }
            done = number + 1
            try check()
        }
    }

    func rate(_ route: Route) -> Double? {
        guard let seconds = seconds[route], let tokens = tokens[route], seconds > 0 else { return nil }
        return Double(tokens) / seconds
    }

    private func replay(_ prompt: Golden.Prompt, _ number: Int, start: Int) throws {
        try decode(prompt) { add(.decode, start + $0, $1) }
        try prefill(prompt) { add(.prefill, start + $0, $1) }
        let ids = try answer(prompt)
        for (name, set) in golden.sets { answers[name, default: []].append(compared(number, ids, set)) }
    }

    private func add(_ route: Route, _ row: Int, _ logits: [Float]) {
        for (name, set) in golden.sets {
            rows[name, default: [:]][route, default: RowFigures()].add(set, top: golden.top, row: row, logits)
        }
    }

    private func decode(_ prompt: Golden.Prompt, _ found: (Int, [Float]) -> Void) throws {
        backend.reset()
        for (offset, id) in prompt.sequence.enumerated() { found(offset, try step(id)) }
    }

    private func prefill(_ prompt: Golden.Prompt, _ found: (Int, [Float]) -> Void) throws {
        let last = prompt.ids.count - 1
        for half in Set([0, prompt.ids.count / 2]).sorted() {
            backend.reset()
            if half > 0 { found(half - 1, try prefill(Array(prompt.ids.prefix(half)))) }
            found(last, try prefill(Array(prompt.ids.dropFirst(half))))
            for (i, id) in prompt.continuation.dropLast().prefix(forced).enumerated() {
                found(last + 1 + i, try step(id))
            }
        }
        backend.reset()
        found(prompt.sequence.count - 1, try prefill(prompt.sequence))
    }

    private func answer(_ prompt: Golden.Prompt) throws -> [Int] {
        backend.reset()
        var chosen = [greedy(try prefill(prompt.ids))]
        while chosen.count < prompt.continuation.count { chosen.append(greedy(try step(chosen.last!))) }
        return chosen
    }

    private func compared(_ prompt: Int, _ ids: [Int], _ set: Golden.Answers) -> Answer {
        let row = prompt * golden.steps
        guard let agreed = ids.indices.first(where: { ids[$0] != Int(set.greedyIds[row + $0]) }) else {
            return Answer(prompt: prompt, agreed: ids.count, ids: ids, parted: nil)
        }
        let parted = Answer.Parted(
            got: ids[agreed], wanted: Int(set.greedyIds[row + agreed]), gap: Double(set.greedyGap[row + agreed]),
            isRunnerUp: ids[agreed] == Int(set.greedyRunnerUp[row + agreed]))
        return Answer(prompt: prompt, agreed: agreed, ids: ids, parted: parted)
    }

    private func prefill(_ ids: [Int]) throws -> [Float] { try timed(.prefill, ids.count) { try backend.prefill(ids) } }
    private func step(_ id: Int) throws -> [Float] { try timed(.decode, 1) { try backend.step(id) } }

    private func timed(_ route: Route, _ count: Int, _ call: () throws -> [Float]) throws -> [Float] {
        try check()
        let start = Date()
        let logits = try call()
        seconds[route, default: 0] += Date().timeIntervalSince(start)
        tokens[route, default: 0] += count
        return logits
    }
}
