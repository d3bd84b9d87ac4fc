"""The graph, asked as its users ask: whole answers, and the statements each costs."""

from conftest import Ask


async def test_group_and_its_members_heaviest_first(ask: Ask) -> None:
    answer = await ask(
        """{ group(name: "mixed", type: ETF) { name type description environment memberCount totalWeight
             members { totalCount nodes { rank symbol weight stock { symbol name industry } group { name } } } } }"""
    )
    assert answer == {
        "data": {
            "group": {
                "name": "MIXED",
                "type": "ETF",
                "description": "Weights that are not all known",
                "environment": "DEFAULT",
                "memberCount": 4,
                "totalWeight": 1.0,
                "members": {
                    "totalCount": 4,
                    "nodes": [
                        {"rank": 1, "symbol": "CVX", "weight": 0.5, "stock": {"symbol": "CVX", "name": "Chevron", "industry": "Integrated Oil & Gas"}, "group": {"name": "MIXED"}},
                        {"rank": 2, "symbol": "XOM", "weight": 0.5, "stock": {"symbol": "XOM", "name": "Exxon Mobil", "industry": "Integrated Oil & Gas"}, "group": {"name": "MIXED"}},
                        {"rank": 3, "symbol": "BRK.B", "weight": None, "stock": {"symbol": "BRK.B", "name": "Berkshire Hathaway", "industry": "Multi-Sector Holdings"}, "group": {"name": "MIXED"}},
                        {"rank": 4, "symbol": "ZZZ", "weight": None, "stock": {"symbol": "ZZZ", "name": None, "industry": None}, "group": {"name": "MIXED"}},
                    ],
                },
            }
        }
    }
    assert sorted(answer.statements) == ["groups_named", "member_counts", "member_ranks", "members_by_weight", "total_weights"]
