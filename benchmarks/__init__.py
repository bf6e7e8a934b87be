"""Speed and memory of Matryo beside what people use today: one process per engine, interleaved
rounds, ratios.
"""
