"""Two hundred texts that tokenizers stumble over: scripts, emoji, white space, digits, code, spellings of controls."""

from __future__ import annotations

import random

WRITTEN = (
    "", " ", "  ", "a", "Hello, world!", "hello hello  hello", " leading", "trailing ", "  two  spaces  ", "\n", "\n\n",
    "\r\n", "a\r\nb\rc\n", "\t", "\ta\t\tb", "a \n b", " \n \n ", "\u00a0nbsp\u00a0", "\u3000ideographic\u3000space",
    "\u2003em\u2009thin", "\ufeffbom", "zero\u200bwidth\u200djoiner", "soft\u00adhyphen", "\x00null", "\x07bell\x1b[0m",
    "\x85next line\u2028line\u2029paragraph", "1", "12", "123", "1234", "1234567890", "3.14159", "1,000,000", "1e-10",
    "٠١٢٣٤٥٦٧٨٩", "०१२३", "Ⅷ ½ ² ①", "0x1F600", "2024-02-29T23:59:60Z", "v1.2.3-rc.4+5", "I'm you're he'll we've they'd",
    "I'M YOU'RE HE'LL", "don’t ‘quote’ “double”", "rock'n'roll 's 't 're", "CamelCaseWords and snake_case_words",
    "SCREAMING_CASE kebab-case", "ALLCAPS lowercase MiXeD", "naïve café résumé", "nai\u0308ve cafe\u0301",
    "Ångström \u212b A\u030a", "ﬁ ﬂ ﬀ ligatures", "ǅ ǆ ǈ titlecase", "İstanbul ısı", "straße STRASSE ẞ", "Łódź Żółw",
    "Tiếng Việt rất đẹp", "Привет, мир! Ёлка", "Γειά σου Κόσμε ΟΔΟΣ", "שלום עולם", "مرحبا بالعالم", "السَّلَامُ عَلَيْكُمْ",
    "हिन्दी में नमस्ते", "বাংলা ভাষা", "தமிழ் மொழி", "ภาษาไทยไม่มีช่องว่าง", "ພາສາລາວ", "မြန်မာဘာသာ", "ភាសាខ្មែរ", "አማርኛ", "ქართული ენა",
    "Հայերեն", "日本語のテキスト。", "吾輩は猫である。名前はまだ無い。", "カタカナ ｶﾀｶﾅ ひらがな", "漢字 汉字 漢字", "中文没有空格", "한국어 문장입니다",
    "\u1112\u1161\u11ab", "𠮷野家 𩸽", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟘𝟙𝟚", "😀", "😀😃😄", "👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈", "🇩🇪🇫🇷🇯🇵", "text😀between🎉words", "❤️ ❤ ☺︎ ☺️",
    "1️⃣2️⃣#️⃣", "e\u0301\u0301\u0302\u0303", "Z̴̡͎a̶l̷g̸o̵", "\u202eright to left\u202c", "a\u0000b", "€£¥₹₿", "±×÷≈≠≤≥∞√∑∫",
    "α→β ⇒ γ", "├── tree\n│   └── leaf", "…—–‐‑", "¿Qué? ¡Olé!", "def f(x):\n    return x ** 2\n",
    "for (int i = 0; i < n; ++i) { a[i] += b[i]; }", "<div class=\"a\">&amp;</div>", "{\"key\": [1, 2.5, null, true]}",
    "SELECT * FROM t WHERE a = 'b''c';", "https://example.org/a?b=c&d=%20#e", "user.name+tag@example.co.uk",
    "C:\\Windows\\System32", "/usr/local/bin/../lib", "$HOME ${PATH} `ls -la`", "#!/bin/sh\nset -eu\n", "\\n \\t \\\\",
    "a=b==c!=d<=e>=f&&g||h", "((((nested))))", "-----", "========", "!!!!!!???", "....", "__init__", "**bold** _it_ `code`",
    "| a | b |\n|---|---|\n", "    indented\n        more\n\tmixed", "                ", "a                b", "\n\n\n\n\n\n\n\n",
    "<|bos|>", "<|start|>user\nhi<|end|>\n", "no<|end|>space", " <|end|> ", "<|end|><|end|>", "<|en", "|end|>", "<|END|>",
    "<s>", "</s>", "<unk>", "<s>hello</s>", "<s> hello </s>", "<0x41>", "<0x0A>", "▁", "▁hello", "a▁b", "▁▁", "Ġword Ċ",
    "[INST] hi [/INST]", "<<SYS>>", "{{ user }}", "{% if %}", "<think></think>", "<tool> call </tool>", "<tool>x",
    "Antidisestablishmentarianism", "Donaudampfschifffahrtsgesellschaft", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "abababababababab", "supercalifragilistic" * 3, "the quick brown fox jumps over the lazy dog",
    "The Quick Brown Fox. THE END", "once upon a time, there was a model that ran on a phone",
)  # fmt: skip

COUNT = 200


def hard_texts() -> list[str]:
    """The written ones, then mixtures of them, up to COUNT; the same at each call."""
    chance = random.Random(7)
    texts = list(dict.fromkeys(WRITTEN))
    while len(texts) < COUNT:
        mixed = "".join(chance.choice(WRITTEN)[:12] + chance.choice(("", " ", "\n", "  ")) for _ in range(5))
        if mixed not in texts:
            texts.append(mixed)
    return texts
