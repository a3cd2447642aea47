import Foundation

extension ParityHost {
    /// This device, as it names itself. name: another name for the file, such as a person gave.
    public static func current(name: String? = nil, compute: String? = nil, placement: Placement? = nil) -> ParityHost {
        let info = ProcessInfo.processInfo
        let version = info.operatingSystemVersion
        let os = "\(systemName) \(version.majorVersion).\(version.minorVersion)"
        var facts: [(name: String, value: Json)] = [
            ("machine", .string(machine)), ("os", .string(os)), ("threads", .integer(info.activeProcessorCount)),
            ("memory_gb", .number((Double(info.physicalMemory) / 0x1p30 * 10).rounded() / 10)),
            ("low_power_mode", .bool(isLowPower)),
        ]
        if let compute { facts.append(("compute_units", .string(compute))) }
        if let placement { facts += placement.facts }
        return ParityHost(device: name ?? "\(machine) \(os)", facts: facts)
    }

    /// Such as "iPhone16,1".
    static var machine: String {
        var system = utsname()
        uname(&system)
        return withUnsafeBytes(of: &system.machine) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }

    private static var systemName: String {
        #if os(iOS)
            "iOS"
        #elseif os(macOS)
            "macOS"
        #else
            "Linux"
        #endif
    }

    private static var isLowPower: Bool {
        #if canImport(Darwin)
            ProcessInfo.processInfo.isLowPowerModeEnabled
        #else
            false
        #endif
    }
}
