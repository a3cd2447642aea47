import Foundation

public enum MLComputeUnits: Int {
    case cpuOnly = 0
    case cpuAndGPU = 1
    case all = 2
    case cpuAndNeuralEngine = 3
}

open class MLModelConfiguration: NSObject {
    open var computeUnits: MLComputeUnits = .all
    @available(iOS 18.0, macOS 15.0, *)
    open var functionName: String? {
        get { nil }
        set {}
    }
}

public enum MLMultiArrayDataType: Int {
    case double, float32, float16, int32
}

open class MLMultiArray: NSObject {
    public init(
        dataPointer: UnsafeMutableRawPointer, shape: [NSNumber], dataType: MLMultiArrayDataType, strides: [NSNumber],
        deallocator: ((UnsafeMutableRawPointer) -> Void)? = nil
    ) throws { fatalError() }
    open var dataType: MLMultiArrayDataType { fatalError() }
    open var shape: [NSNumber] { fatalError() }
    open var strides: [NSNumber] { fatalError() }
    public func withUnsafeBytes<R>(_ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R { fatalError() }
}

open class MLFeatureValue: NSObject {
    public convenience init(multiArray value: MLMultiArray) { fatalError() }
    open var multiArrayValue: MLMultiArray? { fatalError() }
}

public protocol MLFeatureProvider {
    var featureNames: Set<String> { get }
    func featureValue(for featureName: String) -> MLFeatureValue?
}

open class MLDictionaryFeatureProvider: NSObject, MLFeatureProvider {
    public init(dictionary: [String: Any]) throws { fatalError() }
    open var featureNames: Set<String> { fatalError() }
    open func featureValue(for featureName: String) -> MLFeatureValue? { fatalError() }
}

@available(iOS 18.0, macOS 15.0, *)
open class MLState: NSObject {}

open class MLModel: NSObject {
    public convenience init(contentsOf url: URL, configuration: MLModelConfiguration) throws { fatalError() }
    open func prediction(from input: any MLFeatureProvider) throws -> any MLFeatureProvider { fatalError() }
    @available(iOS 18.0, macOS 15.0, *)
    open func prediction(from inputFeatures: any MLFeatureProvider, using state: MLState) throws
        -> any MLFeatureProvider
    { fatalError() }
    @available(iOS 18.0, macOS 15.0, *)
    public func makeState() -> MLState { fatalError() }
    public class func compileModel(at url: URL, completionHandler handler: @escaping (Result<URL, any Error>) -> Void) {
        fatalError()
    }
    public class func compileModel(at url: URL) async throws -> URL { fatalError() }
}

open class MLCPUComputeDevice: NSObject {}
open class MLGPUComputeDevice: NSObject {}
open class MLNeuralEngineComputeDevice: NSObject {}

public enum MLComputeDevice {
    case cpu(MLCPUComputeDevice)
    case gpu(MLGPUComputeDevice)
    case neuralEngine(MLNeuralEngineComputeDevice)
}

@available(iOS 17.4, macOS 14.4, *)
public enum MLModelStructure {
    public struct NeuralNetwork {}
    public struct Pipeline {}
    public struct Program {
        public struct Operation {
            public let operatorName: String
            public let blocks: [Block]
        }
        public struct Block { public let operations: [Operation] }
        public struct Function { public let block: Block }
        public let functions: [String: Function]
    }
    case neuralNetwork(NeuralNetwork)
    case program(Program)
    case pipeline(Pipeline)
    case unsupported
}

@available(iOS 17.4, macOS 14.4, *)
public class MLComputePlan {
    public struct Cost { public let weight: Double }
    public struct DeviceUsage {
        public let supported: [MLComputeDevice]
        public let preferred: MLComputeDevice
    }
    public let modelStructure: MLModelStructure
    init() { fatalError() }
    public static func load(contentsOf url: URL, configuration: MLModelConfiguration) async throws -> MLComputePlan {
        fatalError()
    }
    public func estimatedCost(of operation: MLModelStructure.Program.Operation) -> Cost? { fatalError() }
    public func deviceUsage(for operation: MLModelStructure.Program.Operation) -> DeviceUsage? { fatalError() }
}
