"""Published numbers, to be held beside ours: Tang & Wang, KDD 2018, tables 2 and 3 (Gowalla, Caser)."""

COLUMNS = (
    "precision@3",
    "precision@5",
    "precision@10",
    "ndcg_tang@3",
    "ndcg_tang@5",
    "ndcg_tang@10",
    "map",
)
GOWALLA_CASER = {
    "teacher": (0.1408, 0.1149, 0.0856, 0.1546, 0.1376, 0.1251, 0.0958),
    "student": (0.1333, 0.1094, 0.0818, 0.1456, 0.1304, 0.1188, 0.0919),
    "distilled": (0.1458, 0.1183, 0.0878, 0.1603, 0.1423, 0.1283, 0.0969),
}
# Folder below results/ -> published rows by role.
PUBLISHED = {"gowalla/caser": GOWALLA_CASER}
