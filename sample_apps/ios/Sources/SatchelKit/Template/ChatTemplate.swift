import Foundation

public struct Message: Sendable, Codable, Equatable {
    public var role: String
    public var content: String

    public init(role: String, content: String) {
        self.role = role
        self.content = content
    }
}

/// A chat template, rendered as transformers does it; runtime/chat.py is its twin.
public final class ChatTemplate: @unchecked Sendable {  // immutable
    private let nodes: [Node]
    private let special: [String: String]

    private static let longestRange = 100_000

    /// special: such as "bos_token": "<s>", which templates refer to. Throws a BundleError.
    public init(_ source: String, special: [String: String] = [:]) throws {
        do {
            nodes = try TemplateParser.nodes(source)
        } catch let error as TemplateError {
            throw bundleError("chat_template.jinja is not a valid template", got: error.reason)
        }
        self.special = special
    }

    /// The text that the model is given. Throws a UsageError where the template refuses the conversation.
    public func render(_ messages: [Message], addGenerationPrompt: Bool = true) throws -> String {
        guard !messages.isEmpty else {
            throw usageError("a conversation is a list of messages", wanted: #"[{"role": ..., "content": ...}]"#)
        }
        let scope = Scope(Self.globals())
        for name in ["tools", "documents"] { scope[name] = Value.none }
        for (name, text) in special { scope[name] = .string(text) }
        scope["messages"] = .list(
            messages.map { .dictionary([("role", .string($0.role)), ("content", .string($0.content))]) })
        scope["add_generation_prompt"] = .bool(addGenerationPrompt)
        let runner = TemplateRunner()
        do {
            try runner.run(nodes, scope)
        } catch let error as TemplateError {
            let hint = "most templates want the roles user and assistant in turn, and text as content"
            throw usageError("the chat template refuses this conversation", got: error.reason, hint: hint)
        }
        return runner.output
    }

    /// The special tokens by name, as templates know them, out of tokenizer_config.json.
    public static func specialTokens(_ config: Data) throws -> [String: String] {
        let value = try parseJson(config, "tokenizer_config.json", exactIntegers: false)
        guard let object = value.object else { throw Fields.refuse(value, "an object", "tokenizer_config.json") }
        var found: [String: String] = [:]
        for entry in object.entries where entry.key.hasSuffix("_token") && !entry.key.hasPrefix("add_") {
            found[entry.key] = entry.value.string ?? entry.value["content"]?.string
        }
        return found
    }

    private static func globals() -> [String: Value] {
        [
            "range": .function { try range($0) },
            "namespace": .function { arguments in
                let space = Namespace()
                for (name, value) in arguments.named { space.values[name] = value }
                return .namespace(space)
            },
            "dict": .function { .dictionary($0.named.map { (key: $0.name, value: $0.value) }) },
            "raise_exception": .function { throw TemplateError($0.value(0, "message")?.text ?? "") },
            "strftime_now": .function { .string(now(try $0.needed(0).text)) },
        ]
    }

    private static func range(_ arguments: Arguments) throws -> Value {
        let bounds = arguments.positional.compactMap(\.integer)
        guard (1...3).contains(bounds.count), bounds.count == arguments.positional.count else {
            throw TemplateError("range of what are no integers")
        }
        let (start, stop) = bounds.count == 1 ? (0, bounds[0]) : (bounds[0], bounds[1])
        let step = bounds.count == 3 ? bounds[2] : 1
        guard step != 0, abs((stop - start) / step) <= longestRange else {
            throw TemplateError("a range that is too large")
        }
        return .list(stride(from: start, to: stop, by: step).map(Value.integer))
    }

    private static func now(_ pattern: String) -> String {
        var (seconds, parts) = (time(nil), tm())
        localtime_r(&seconds, &parts)
        var buffer = [CChar](repeating: 0, count: 256)
        return strftime(&buffer, buffer.count, pattern, &parts) > 0 ? String(cString: buffer) : ""
    }
}
