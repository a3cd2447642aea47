import Foundation

/// How to choose the next id, exactly as runtime/FORMAT.md, "Sampling", says; runtime/sampling.py is its twin.
public struct Sampling: Sendable, Equatable {
    /// Divides the logits; 0 is greedy.
    public var temperature: Double
    /// The k likeliest ids only; 0 keeps all.
    public var topK: Int
    /// The fewest ids whose probabilities sum to at least this; 1 keeps all.
    public var topP: Double

    public init(temperature: Double = 0, topK: Int = 0, topP: Double = 1) {
        self.temperature = temperature
        self.topK = topK
        self.topP = topP
    }

    /// Throws a UsageError.
    public func check() throws {
        guard temperature >= 0, temperature < .infinity else {
            throw usageError("temperature is out of range", got: temperature, wanted: ">= 0; 0 is greedy")
        }
        guard topK >= 0 else { throw usageError("top_k is out of range", got: topK, wanted: ">= 0; 0 keeps all ids") }
        guard topP > 0, topP <= 1 else {
            throw usageError("top_p is out of range", got: topP, wanted: "0 < top_p <= 1; 1 keeps all ids")
        }
    }
}

/// Chooses ids, one random number each; the same seed gives the same choices.
public struct Sampler {
    private let how: Sampling
    private var random: Pcg64

    /// Throws a UsageError.
    public init(_ how: Sampling, seed: Seed? = nil) throws {
        try how.check()
        self.how = how
        random = Pcg64(seed: seed ?? .fromSystem())
    }

    public mutating func next(_ logits: [Float]) -> Int {
        how.temperature == 0 ? greedy(logits) : choose(logits, how, random.next())
    }
}

/// The id of the largest logit; of equal ones the lowest. A NaN counts as the largest, as numpy has it.
public func greedy(_ logits: [Float]) -> Int {
    var best = 0
    for (i, value) in logits.enumerated() {
        if value.isNaN { return i }
        if value > logits[best] { best = i }
    }
    return best
}

/// The id that the random number u in [0, 1) picks; the temperature is above 0.
func choose(_ logits: [Float], _ how: Sampling, _ u: Double) -> Int {
    let ids = likeliest(logits, how.topK)
    let first = Double(logits[ids[0]]) / how.temperature
    var total = 0.0
    var sums = ids.map { id in
        total += exp(Double(logits[id]) / how.temperature - first)
        return total
    }
    if how.topP < 1 {
        let kept = sums.firstIndex { $0 >= how.topP * total } ?? sums.count - 1
        sums.removeLast(sums.count - kept - 1)
    }
    let picked = sums.firstIndex { $0 > u * sums.last! } ?? sums.count - 1
    return ids[picked]
}

/// Ids by falling logit, equal ones by rising id: the first topK, or all.
private func likeliest(_ logits: [Float], _ topK: Int) -> [Int] {
    func comesFirst(_ a: Int, _ b: Int) -> Bool { logits[a] != logits[b] ? logits[a] > logits[b] : a < b }
    guard topK > 0, topK < logits.count else { return logits.indices.sorted(by: comesFirst) }
    let threshold = logits.sorted(by: >)[topK - 1]
    return Array(logits.indices.filter { logits[$0] >= threshold }.sorted(by: comesFirst).prefix(topK))
}
