import Foundation

/// What happens while a bundle is opened, a question answered, or Parity runs.
public enum EngineEvent: Sendable {
    /// How much of what is being done is done; a total of 0 where that is not known.
    case progress(stage: String, done: Int, total: Int)
    case piece(String)
    case answered(Answered)
    case opened(Opened)
    case parity(ParityReport)
}

public struct Answered: Sendable {
    public var reason: FinishReason
    public var promptTokens = 0
    public var tokens = 0
    public var prefillSeconds = 0.0
    public var decodeSeconds = 0.0

    public var prefillRate: Double? {
        prefillSeconds > 0 && promptTokens > 0 ? Double(promptTokens) / prefillSeconds : nil
    }
    /// The first id comes with the prompt.
    public var decodeRate: Double? { decodeSeconds > 0 && tokens > 1 ? Double(tokens - 1) / decodeSeconds : nil }
}

public struct Opened: Sendable {
    public let manifest: Manifest
    public let bytes: Int
    public let hasTemplate: Bool
    public let runtime: String
    public let loadSeconds: Double
}

/// Holds one model on a queue of its own; calls wait for each other, and each can be cancelled between two tokens by
/// cancelling the task that goes through its events.
public final class Engine: @unchecked Sendable {  // what changes is used on the queue alone
    public typealias Load = @Sendable (ModelBundle, _ progress: @escaping (String) -> Void) throws -> any Backend

    private let queue = DispatchQueue(label: "satchel.engine", qos: .userInitiated)
    private let load: Load
    private var session: Session?
    private var loadSeconds = 0.0

    public init(load: @escaping Load) { self.load = load }

    /// Opens a bundle and loads its model. verify: hash every file.
    public func open(_ folder: URL, verify: Bool = true) -> AsyncThrowingStream<EngineEvent, Error> {
        run { [self] emit, flag in
            session = nil  // frees the model before the next one takes its memory
            let bundle = try ModelBundle(folder: folder, verify: verify) { done, total in
                try flag.check()
                emit(.progress(stage: "Checking the bundle", done: done, total: total))
            }
            try flag.check()
            emit(.progress(stage: "Loading the model", done: 0, total: 0))
            let start = Date()
            let backend = try load(bundle) { emit(.progress(stage: $0, done: 0, total: 0)) }
            try flag.check()
            session = try Session(bundle, backend)
            loadSeconds = Date().timeIntervalSince(start)
            emit(
                .opened(
                    Opened(
                        manifest: bundle.manifest, bytes: bundle.bytes, hasTemplate: session?.template != nil,
                        runtime: backend.runtime, loadSeconds: loadSeconds)))
        }
    }

    public func chat(_ messages: [Message], _ options: GenerateOptions = .init()) -> AsyncThrowingStream<
        EngineEvent, Error
    > {
        run { [self] emit, flag in
            var answered = Answered(reason: .cancelled)
            var last = Date()
            var watch = Watch()
            watch.isCancelled = { flag.isSet }
            watch.prefilled = { done, total in
                answered.promptTokens = total
                emit(.progress(stage: "Reading", done: done, total: total))
            }
            answered.reason = try loaded().chat(messages, options, watch: watch) { text, tokens in
                let seconds = Date().timeIntervalSince(last)
                if answered.tokens == 0 {
                    answered.prefillSeconds += seconds
                } else {
                    answered.decodeSeconds += seconds
                }
                last = Date()
                answered.tokens += tokens
                emit(.piece(text))
            }
            emit(.answered(answered))
        }
    }

    /// prompts: only the first so many.
    public func parity(host: ParityHost, prompts: Int? = nil) -> AsyncThrowingStream<EngineEvent, Error> {
        run { [self] emit, flag in
            let session = try loaded()
            defer { session.forget() }  // what the cache holds then is of no conversation
            let report = try checkParity(
                session.bundle, session.backend, host: host, loadSeconds: loadSeconds, prompts: prompts
            ) { done, total in
                try flag.check()
                emit(.progress(stage: "Replaying golden prompts", done: done, total: total))
            }
            emit(.parity(report))
        }
    }

    public func close() {
        queue.async { self.session = nil }
    }

    private func loaded() throws -> Session {
        guard let session else { throw usageError("no bundle is open", hint: "open one first") }
        return session
    }

    private func run(
        _ work: @escaping (_ emit: @escaping (EngineEvent) -> Void, _ flag: CancelFlag) throws -> Void
    ) -> AsyncThrowingStream<EngineEvent, Error> {
        AsyncThrowingStream { continuation in
            let flag = CancelFlag()
            continuation.onTermination = { _ in flag.set() }
            queue.async {
                do {
                    try flag.check()
                    try work({ continuation.yield($0) }, flag)
                    continuation.finish()
                } catch {
                    continuation.finish(throwing: error)
                }
            }
        }
    }
}

/// Set by one thread, asked by another.
final class CancelFlag: @unchecked Sendable {
    private let lock = NSLock()
    private var value = false

    var isSet: Bool { lock.withLock { value } }
    func set() { lock.withLock { value = true } }
    func check() throws { if isSet { throw CancellationError() } }
}
