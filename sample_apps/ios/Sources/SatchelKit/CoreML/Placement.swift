import Foundation

/// On which processors Core ML means to run a model, as it says itself.
public struct Placement: Sendable {
    /// "neuralEngine", "gpu" or "cpu" -> how many operations it prefers there.
    public let operations: [String: Int]
    /// The same -> its share of the estimated cost, 0 to 1.
    public let shares: [String: Double]
    /// Operations that are not on the Neural Engine, by name.
    public let elsewhere: [String: Int]

    init(_ found: [(operation: String, device: String, cost: Double)]) {
        let total = found.reduce(0) { $0 + $1.cost }
        operations = found.reduce(into: [:]) { $0[$1.device, default: 0] += 1 }
        shares = total > 0 ? found.reduce(into: [:]) { $0[$1.device, default: 0] += $1.cost / total } : [:]
        elsewhere = found.reduce(into: [:]) { if $1.device != "neuralEngine" { $0[$1.operation, default: 0] += 1 } }
    }

    /// For parity-<device>.json: share of cost and number of operations, by processor.
    public var facts: [(name: String, value: Json)] {
        operations.sorted { $0.key < $1.key }.flatMap { device, count in
            [
                ("\(device)_operations", Json.integer(count)),
                ("\(device)_cost_share", rounded(shares[device]).map(Json.number) ?? .null),
            ]
        }
    }
}

#if canImport(CoreML)
    import CoreML

    @available(iOS 17.4, macOS 14.4, *)
    extension Placement {
        /// Asks Core ML for all functions of all packages. Throws a FormatError.
        public static func read(_ bundle: ModelBundle, compute: String? = nil) async throws -> Placement {
            let configuration = MLModelConfiguration()
            configuration.computeUnits = try CoreMLBackend.computeUnits(
                compute ?? bundle.manifest.entry.option("compute") ?? "all")
            var found: [(operation: String, device: String, cost: Double)] = []
            for path in bundle.manifest.entry.paths {
                let plan = try await MLComputePlan.load(
                    contentsOf: try CompiledModels.url(of: path, in: bundle), configuration: configuration)
                guard case .program(let program) = plan.modelStructure else {
                    throw formatError("Core ML does not tell where \(path) runs", wanted: "an ML program")
                }
                for function in program.functions.values { found += placed(function.block, plan) }
            }
            return Placement(found)
        }

        /// Constants have no place.
        private static func placed(_ block: MLModelStructure.Program.Block, _ plan: MLComputePlan) -> [(
            operation: String, device: String, cost: Double
        )] {
            block.operations.flatMap { operation -> [(operation: String, device: String, cost: Double)] in
                let inner = operation.blocks.flatMap { placed($0, plan) }
                guard let usage = plan.deviceUsage(for: operation) else { return inner }
                return inner + [
                    (operation.operatorName, name(usage.preferred), plan.estimatedCost(of: operation)?.weight ?? 0)
                ]
            }
        }

        private static func name(_ device: MLComputeDevice) -> String {
            switch device {
            case .cpu: "cpu"
            case .gpu: "gpu"
            case .neuralEngine: "neuralEngine"
            @unknown default: "other"
            }
        }
    }
#endif
