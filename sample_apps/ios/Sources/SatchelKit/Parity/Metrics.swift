import Foundation

/// KL divergence of one row in nats, over the reference's top ids and one lump of all others, sums in fp64.
/// runtime/metrics.py is its twin.
///
/// topLogits: the reference's, of topIds; rest: its logsumexp over the others, -infinity for none.
/// candidate: the whole row, [vocab].
func klFromTop(_ topIds: ArraySlice<Int32>, _ topLogits: ArraySlice<Float>, _ rest: Float, _ candidate: [Float])
    -> Double
{
    let p = normalized(topLogits.map(Double.init) + [Double(rest)])
    let q = normalized(topIds.map { Double(candidate[Int($0)]) } + [logsumexp(without(topIds, candidate))])
    let sum = zip(p, q).reduce(0) { $1.0 == -.infinity ? $0 : $0 + exp($1.0) * ($1.0 - $1.1) }
    return sum > 0 || sum.isNaN ? sum : 0
}

/// The largest absolute difference at the reference's top ids; NaN counts as the largest.
func largestDifference(_ topIds: ArraySlice<Int32>, _ topLogits: ArraySlice<Float>, _ candidate: [Float]) -> Double {
    zip(topIds, topLogits).reduce(0) { largest, top in
        let difference = Double(abs(top.1 - candidate[Int(top.0)]))
        return largest.isNaN || difference <= largest ? largest : difference  // NaN wins
    }
}

func mean(_ values: [Double]) -> Double { values.reduce(0, +) / Double(values.count) }

/// Interpolates linearly, as numpy does. fraction: 0 to 1.
func percentile(_ values: [Double], _ fraction: Double) -> Double {
    let sorted = values.sorted()
    let place = fraction * Double(sorted.count - 1)
    let (low, high) = (sorted[Int(place.rounded(.down))], sorted[Int(place.rounded(.up))])
    return low + (high - low) * (place - place.rounded(.down))
}

/// Standard error of the mean, from the means of consecutive blocks, since neighbours are alike; NaN below two blocks.
func standardError(_ values: [Double], block: Int) -> Double {
    let blocks = values.count / block
    if blocks < 2 { return .nan }
    let means = (0..<blocks).map { mean(Array(values[$0 * block..<($0 + 1) * block])) }
    let centre = mean(means)
    let variance = means.reduce(0) { $0 + ($1 - centre) * ($1 - centre) } / Double(blocks - 1)
    return (variance / Double(blocks)).squareRoot()
}

private func normalized(_ values: [Double]) -> [Double] {
    let whole = logsumexp(values)
    return values.map { $0 - whole }
}

private func without(_ ids: ArraySlice<Int32>, _ row: [Float]) -> [Double] {
    var others = row.map(Double.init)
    for id in ids { others[Int(id)] = -.infinity }
    return others
}

private func logsumexp(_ values: [Double]) -> Double {
    let largest = values.reduce(-.infinity) { $1 <= $0 ? $0 : $1 }
    let shift = largest.isFinite ? largest : 0
    return log(values.reduce(0) { $0 + exp($1 - shift) }) + shift
}

/// Six digits; nil where there is no number.
func rounded(_ value: Double?) -> Double? {
    guard let value, value.isFinite else { return nil }
    return Double(String(format: "%.6g", value))
}
