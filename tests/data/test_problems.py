"""What is told of problems while a run goes on."""

from aunet.data.problems import Problems


def test_counts_are_told_at_first_tenfold_and_at_the_end() -> None:
    problems, told = Problems(), dict[str, int]()
    heard = []
    for number in range(1, 251):
        problems.add("malformed JSON", f"a.jsonl:{number}", "not valid JSON")
        heard += problems.news(told)
    assert [line.split(",")[0] for line in heard] == [f"skipped {n} x malformed JSON" for n in (1, 11, 111)]
    assert all(line.endswith("first a.jsonl:1: not valid JSON") for line in heard)
    problems.add("binary file", "b.txt", "binary file")
    assert problems.news(told) == ["skipped 1 x binary file, first b.txt: binary file"]
    assert [line.split(",")[0] for line in problems.news(told, last=True)] == ["skipped 250 x malformed JSON"]
    assert problems.news(told, last=True) == []
