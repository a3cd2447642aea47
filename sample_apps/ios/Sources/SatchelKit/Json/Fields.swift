/// Reads JSON values that are exactly what was asked for: every key present, of its type, no other key.
struct Fields {
    private let object: JsonObject
    private let place: String

    /// where: what the value is, for messages, such as "manifest.json.entry".
    init(_ value: Json, _ place: String, _ names: [String], optional: [String] = []) throws {
        guard let object = value.object else { throw Self.refuse(value, "an object", place) }
        let unknown = object.keys.filter { !(names + optional).contains($0) }
        let missing = names.filter { object[$0] == nil }
        guard unknown.isEmpty && missing.isEmpty else {
            throw bundleError(
                unknown.isEmpty ? "keys missing from \(place)" : "unknown keys in \(place)",
                got: unknown.isEmpty ? missing : unknown, wanted: names + optional,
                hint: "use the app of the Satchel that wrote the bundle, or export it again")
        }
        self.object = object
        self.place = place
    }

    func has(_ name: String) -> Bool { object[name] != nil }

    func text(_ name: String) throws -> String { try get(name, "a string", \.string) }
    func flag(_ name: String) throws -> Bool { try get(name, "true or false", \.bool) }
    func integer(_ name: String) throws -> Int { try get(name, "an integer", \.integer) }
    func number(_ name: String) throws -> Double { try get(name, "a number", \.number) }
    func object(_ name: String) throws -> JsonObject { try get(name, "an object", \.object) }

    func integerOrNull(_ name: String) throws -> Int? { object[name]!.isNull ? nil : try integer(name) }
    func textOrNull(_ name: String) throws -> String? { object[name]!.isNull ? nil : try text(name) }

    func choice<T: RawRepresentable & CaseIterable>(_ name: String) throws -> T where T.RawValue == String {
        let known = T.allCases.map(\.rawValue).joined(separator: " or ")
        return try get(name, known) { $0.string.flatMap(T.init(rawValue:)) }
    }

    func list<T>(_ name: String, _ read: (Json, String) throws -> T) throws -> [T] {
        try get(name, "a list", \.array).enumerated().map { try read($1, "\(place).\(name)[\($0)]") }
    }

    func texts(_ name: String) throws -> [String] { try list(name, readText) }
    func integers(_ name: String) throws -> [Int] { try list(name, readInteger) }

    /// (key, value) of an object whose keys may be any.
    func dictionary<T>(_ name: String, _ read: (Json, String) throws -> T) throws -> [(key: String, value: T)] {
        try object(name).entries.map { ($0.key, try read($0.value, "\(place).\(name).\($0.key)")) }
    }

    func nested<T>(_ name: String, _ read: (Json, String) throws -> T) throws -> T {
        try read(object[name]!, "\(place).\(name)")
    }

    private func get<T>(_ name: String, _ wanted: String, _ read: (Json) -> T?) throws -> T {
        guard let value = read(object[name]!) else { throw Self.refuse(object[name]!, wanted, "\(place).\(name)") }
        return value
    }

    static func refuse(_ value: Json, _ wanted: String, _ place: String) -> SatchelError {
        bundleError("\(place) is not what it should be", got: value.summary, wanted: wanted)
    }
}

func readText(_ value: Json, _ place: String) throws -> String {
    guard let text = value.string else { throw Fields.refuse(value, "a string", place) }
    return text
}

func readInteger(_ value: Json, _ place: String) throws -> Int {
    guard let integer = value.integer else { throw Fields.refuse(value, "an integer", place) }
    return integer
}
