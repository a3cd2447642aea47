import Foundation

public enum Comparison: String, CaseIterable, Sendable {
    case lowering, quality

    var set: Golden.SetName { self == .lowering ? .weights : .reference }
}

/// How an engine computes.
public enum Arithmetic: String, Sendable {
    case fp32, fp16, int8

    /// scheme: of the manifest's weights. Core ML rounds to halves; CPU kernels for compressed weights take activations
    /// in 8 bits.
    init(format: ModelFormat, scheme: String) {
        self = format == .coreml ? .fp16 : Arithmetic(rawValue: scheme) ?? .int8
    }
}

public struct Limit: Sendable, Equatable {
    public let figure: String
    public let value: Double
    public let reason: String
    public let isMaximum: Bool

    /// False for a figure that could not be had, and for NaN.
    func allows(_ found: Double?) -> Bool {
        guard let found else { return false }
        return isMaximum ? found <= value : found >= value
    }
}

/// How far a bundle may be from its golden data: runtime/limits.py's table, see Resources/limits.json.
struct Limits {
    private let table: Json
    private let maxima: [String]

    init() throws {
        guard let url = Bundle.module.url(forResource: "limits", withExtension: "json"),
            let data = try? Data(contentsOf: url)
        else {
            throw bundleError("the app lacks its table of limits", wanted: "limits.json", hint: "install the app again")
        }
        table = try parseJson(data, "limits.json")
        maxima = (table["maxima"]?.array ?? []).compactMap(\.string)
    }

    /// The gap of logits below which rounding may choose the other id.
    func tie(_ comparison: Comparison, _ arithmetic: Arithmetic) -> Double {
        (comparison == .lowering ? table["ties"]?[arithmetic.rawValue] : table["quality_tie"])?.number ?? 0
    }

    /// The limits of a comparison by figure. scheme: of the manifest's weights.
    func limits(_ comparison: Comparison, _ arithmetic: Arithmetic, scheme: String) -> [String: Limit] {
        let of = table[comparison.rawValue]?[arithmetic.rawValue]
        let list = comparison == .lowering ? of?.array : of?[scheme]?.array
        let limits = (list ?? []).compactMap { item -> Limit? in
            guard let figure = item["figure"]?.string, let value = item["value"]?.number else { return nil }
            return Limit(
                figure: figure, value: value, reason: item["reason"]?.string ?? "", isMaximum: maxima.contains(figure))
        }
        return Dictionary(uniqueKeysWithValues: limits.map { ($0.figure, $0) })
    }
}
