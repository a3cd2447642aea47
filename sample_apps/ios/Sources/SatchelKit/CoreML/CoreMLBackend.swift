#if canImport(CoreML)
    import CoreML
    import Foundation

    /// Runs a bundle by Core ML: states from iOS 18 on, the cache as inputs and outputs before; prefill and decode are
    /// functions of one package; a larger model is a chain of packages.
    public enum CoreMLBackend {
        /// Compiles (where that was not done before) and loads the bundle's packages.
        ///
        /// compute: of the manifest's options, such as "cpuAndNeuralEngine", or another. told: which step begins.
        /// Throws a FormatError.
        public static func open(
            _ bundle: ModelBundle, compute: String? = nil, told: @escaping (String) -> Void = { _ in }
        ) throws -> PackageChain {
            let units = try computeUnits(compute ?? bundle.manifest.entry.option("compute") ?? "all")
            CompiledModels.keepOnly(bundle)
            return try PackageChain(bundle.manifest, runtime: "Core ML") { functions in
                told("Preparing \(functions.path)")
                let compiled = try CompiledModels.url(of: functions.path, in: bundle)
                told("Loading \(functions.path)")
                return try CoreMLPackage(compiled, functions, units)
            }
        }

        static func computeUnits(_ name: String) throws -> MLComputeUnits {
            switch name {
            case "all": return .all
            case "cpuOnly": return .cpuOnly
            case "cpuAndGPU": return .cpuAndGPU
            case "cpuAndNeuralEngine": return .cpuAndNeuralEngine
            default:
                throw formatError(
                    "compute units that are not known", got: name,
                    wanted: "all, cpuOnly, cpuAndGPU or cpuAndNeuralEngine")
            }
        }
    }

    /// The functions of one package, each a model of its own for Core ML; they share weights and states.
    final class CoreMLPackage: PackageRunner {
        private let models: [String: MLModel]
        private let stateful: [String]
        private var state: Any?  // an MLState, which systems before iOS 18 do not have

        init(_ compiled: URL, _ functions: PackageFunctions, _ units: MLComputeUnits) throws {
            let isOne = functions.functions.count == 1
            models = try Dictionary(
                uniqueKeysWithValues: functions.functions.map { function in
                    let configuration = try Self.configuration(units, function: isOne ? nil : function.name)
                    do {
                        return (function.name, try MLModel(contentsOf: compiled, configuration: configuration))
                    } catch {
                        throw formatError(
                            "Core ML cannot load \(functions.path)", got: reason(of: error),
                            hint: "the model may be too large for this device, or made for a newer system")
                    }
                })
            stateful = functions.functions.filter(\.isStateful).map(\.name)
            if !stateful.isEmpty { try Self.needStates() }
            reset()
        }

        func reset() {
            guard let first = stateful.first, let model = models[first] else { return }
            if #available(iOS 18.0, macOS 15.0, *) { state = model.makeState() }
        }

        func run(_ function: String, _ inputs: [String: HostTensor]) throws -> [String: HostTensor] {
            guard let model = models[function] else {
                throw formatError("the package has no such function", got: function)
            }
            do {
                let given = try MLDictionaryFeatureProvider(
                    dictionary: inputs.mapValues { MLFeatureValue(multiArray: try $0.multiArray()) })
                let found = try predict(model, given, keepsState: stateful.contains(function))
                return try withExtendedLifetime(inputs) { try tensors(found) }
            } catch let error as SatchelError {
                throw error
            } catch {
                throw formatError(
                    "Core ML failed to run the model", got: reason(of: error),
                    hint: "close other apps, or use a smaller model")
            }
        }

        private func predict(_ model: MLModel, _ given: any MLFeatureProvider, keepsState: Bool) throws
            -> any MLFeatureProvider
        {
            if keepsState, #available(iOS 18.0, macOS 15.0, *), let state = state as? MLState {
                return try model.prediction(from: given, using: state)
            }
            return try model.prediction(from: given)
        }

        private func tensors(_ found: any MLFeatureProvider) throws -> [String: HostTensor] {
            var tensors: [String: HostTensor] = [:]
            for name in found.featureNames {
                if let array = found.featureValue(for: name)?.multiArrayValue {
                    tensors[name] = try HostTensor.copied(array)
                }
            }
            return tensors
        }

        private static func configuration(_ units: MLComputeUnits, function: String?) throws -> MLModelConfiguration {
            let configuration = MLModelConfiguration()
            configuration.computeUnits = units
            guard let function else { return configuration }
            if #available(iOS 18.0, macOS 15.0, *) { configuration.functionName = function } else { try needStates() }
            return configuration
        }

        private static func needStates() throws {
            if #available(iOS 18.0, macOS 15.0, *) { return }
            throw formatError(
                "this bundle needs a newer system", got: ProcessInfo.processInfo.operatingSystemVersionString,
                wanted: "iOS 18 or macOS 15", hint: "export it for an older device, such as --device iphone-12")
        }
    }

    extension HostTensor {
        /// This memory as Core ML sees it: nothing is copied, so keep the tensor as long as the array is used.
        fileprivate func multiArray() throws -> MLMultiArray {
            var strides = [Int](repeating: 1, count: shape.count)
            for axis in shape.indices.dropLast().reversed() { strides[axis] = strides[axis + 1] * shape[axis + 1] }
            return try MLMultiArray(
                dataPointer: memory, shape: shape.map { NSNumber(value: $0) }, dataType: type.coreML,
                strides: strides.map { NSNumber(value: $0) }, deallocator: nil)
        }

        /// A copy, without the gaps that the Neural Engine leaves between rows.
        fileprivate static func copied(_ array: MLMultiArray) throws -> HostTensor {
            guard let type = ElementType(array.dataType) else {
                throw formatError("Core ML gave numbers of an unknown kind", got: array.dataType.rawValue)
            }
            let (shape, strides) = (array.shape.map(\.intValue), array.strides.map(\.intValue))
            return array.withUnsafeBytes { HostTensor(shape, type, from: $0.baseAddress!, strides: strides) }
        }
    }

    extension ElementType {
        fileprivate var coreML: MLMultiArrayDataType {
            switch self {
            case .float16: .float16
            case .float32: .float32
            case .int32: .int32
            }
        }

        fileprivate init?(_ type: MLMultiArrayDataType) {
            switch type {
            case .float16: self = .float16
            case .float32: self = .float32
            case .int32: self = .int32
            default: return nil
            }
        }
    }
#endif
