/// The random numbers of runtime/sampling.py: numpy's `Generator(PCG64(seed)).random()`.
///
/// PCG64 is O'Neill's PCG XSL-RR 128/64 (pcg-random.org); its state is made from the seed by numpy's SeedSequence,
/// which hashes it into a pool of four words (numpy.org, "Parallel random number generation").
struct Pcg64 {
    private var state: Wide
    private let increment: Wide

    private static let multiplier = Wide(high: 0x2360_ed05_1fc6_5da4, low: 0x4385_df64_9fcc_f645)

    init(seed: Seed) {
        let words = seed.stateWords()
        increment = Wide(high: words[2] << 1 | words[3] >> 63, low: words[3] << 1 | 1)
        state = Wide(high: 0, low: 0)
        advance()
        state = state + Wide(high: words[0], low: words[1])
        advance()
    }

    /// In [0, 1), with 53 random bits.
    mutating func next() -> Double {
        advance()
        let mixed = state.high ^ state.low
        let turn = state.high >> 58
        let turned = mixed >> turn | mixed << ((64 - turn) & 63)
        return Double(turned >> 11) * 0x1p-53
    }

    private mutating func advance() { state = state * Self.multiplier + increment }
}

/// 128 bits that wrap around; Swift's own type came with iOS 18.
private struct Wide {
    var high: UInt64
    var low: UInt64

    static func + (a: Wide, b: Wide) -> Wide {
        let (low, carry) = a.low.addingReportingOverflow(b.low)
        return Wide(high: a.high &+ b.high &+ (carry ? 1 : 0), low: low)
    }

    static func * (a: Wide, b: Wide) -> Wide {
        let product = a.low.multipliedFullWidth(by: b.low)
        return Wide(high: product.high &+ a.high &* b.low &+ a.low &* b.high, low: product.low)
    }
}

/// An integer, 0 or above, of any length.
public struct Seed: Sendable {
    private let words: [UInt32]  // the lowest first

    public init(_ value: UInt64) {
        words = value >> 32 == 0 ? [UInt32(value)] : [UInt32(truncatingIfNeeded: value), UInt32(value >> 32)]
    }

    /// From decimal digits. Throws a UsageError.
    public init(_ text: String) throws {
        let digits = text.utf8.map { Int($0) - Int(UInt8(ascii: "0")) }
        guard !digits.isEmpty, digits.allSatisfy({ (0...9).contains($0) }) else {
            throw usageError("a seed is out of range", got: text, wanted: "an integer, >= 0")
        }
        var words: [UInt32] = [0]
        for digit in digits {
            var carry = UInt64(digit)
            for i in words.indices {
                carry += UInt64(words[i]) * 10
                words[i] = UInt32(truncatingIfNeeded: carry)
                carry >>= 32
            }
            if carry > 0 { words.append(UInt32(carry)) }
        }
        self.words = words
    }

    /// One from the system, for those who give none.
    public static func fromSystem() -> Seed { Seed(UInt64.random(in: 0..<1 << 53)) }

    /// SeedSequence(seed).generate_state(4, uint64).
    fileprivate func stateWords() -> [UInt64] {
        let pool = pool()
        var constant: UInt32 = 0x8b51_f9dd
        let words = (0..<8).map { i in
            let value = pool[i % 4] ^ constant
            constant = constant &* 0x58f3_8ded
            return UInt64(folded(value &* constant))
        }
        return [0, 2, 4, 6].map { words[$0] | words[$0 + 1] << 32 }
    }

    private func pool() -> [UInt32] {
        var constant: UInt32 = 0x43b0_d7e5
        func hashed(_ value: UInt32) -> UInt32 {
            let mixed = value ^ constant
            constant = constant &* 0x931e_8875
            return folded(mixed &* constant)
        }
        var pool = (0..<4).map { hashed($0 < words.count ? words[$0] : 0) }
        for from in 0..<4 {
            for to in 0..<4 where from != to { pool[to] = mixed(pool[to], hashed(pool[from])) }
        }
        for word in words.dropFirst(4) {
            for to in 0..<4 { pool[to] = mixed(pool[to], hashed(word)) }
        }
        return pool
    }
}

private func mixed(_ x: UInt32, _ y: UInt32) -> UInt32 { folded(0xca01_f9dd &* x &- 0x4973_f715 &* y) }
private func folded(_ value: UInt32) -> UInt32 { value ^ value >> 16 }
