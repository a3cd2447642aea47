import XCTest

@testable import SatchelKit

final class SamplingTests: XCTestCase {
    func testNumpysRandomNumbers() throws {
        for item in try vector("sampling.json")["random"]!.array! {
            var random = Pcg64(seed: try Seed(item["seed"]!.string!))
            for wanted in item["numbers"]!.numbers { XCTAssertEqual(random.next(), wanted, item["seed"]!.string!) }
        }
        var (whole, spelled) = (Pcg64(seed: Seed(1 << 32 + 7)), Pcg64(seed: try Seed("4294967303")))
        XCTAssertEqual(whole.next(), spelled.next())
    }

    func testTheRuntimesChoices() throws {
        let cases = try vector("sampling.json")["choices"]!.array!
        XCTAssertGreaterThanOrEqual(cases.count, 60)
        for item in cases {
            let (logits, how) = (item["logits"]!.floats, sampling(item))
            let ids = item["u"]!.numbers.map { choose(logits, how, $0) }
            XCTAssertEqual(ids, item["ids"]!.integers, "\(how)")
            XCTAssertEqual(greedy(logits), item["greedy"]!.integer!)
        }
    }

    func testWholeAnswers() throws {
        for item in try vector("sampling.json")["runs"]!.array! {
            var sampler = try Sampler(sampling(item), seed: try Seed(item["seed"]!.string!))
            let logits = item["logits"]!.floats
            XCTAssertEqual(item["ids"]!.integers.map { _ in sampler.next(logits) }, item["ids"]!.integers)
        }
    }

    private func sampling(_ item: Json) -> Sampling {
        Sampling(temperature: item["temperature"]!.number!, topK: item["top_k"]!.integer!, topP: item["top_p"]!.number!)
    }

    func testSettingsOutOfRange() {
        let bad = [
            Sampling(temperature: -1), Sampling(temperature: .nan), Sampling(temperature: .infinity),
            Sampling(topK: -1),
            Sampling(topP: 0), Sampling(topP: 1.1),
        ]
        for how in bad { XCTAssertRefused("out of range") { _ = try Sampler(how) } }
        for seed in ["", "-1", "0.5", "x"] { XCTAssertRefused("a seed is out of range") { _ = try Seed(seed) } }
        XCTAssertEqual(greedy([1, .nan, 2]), 1)
        XCTAssertEqual(greedy([1, 2, 2]), 1)
    }
}
