"""Decisions in words, for people, in English and in Chinese: every reason code, rail, rule and status has its words here.

Words may change, codes do not. One plain sentence per price (`explain`), one line per rail of a trail (`step_line`). Not here:
which codes a price has (pricing.reasons), the numbers behind it (pricing.explanation).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from contracts.currency import minor_digits
from contracts.decisions import Decision, TrailStep
from contracts.prices import PriceUpdate
from pricing.reasons import LEARNED_AIMS, RAIL

if TYPE_CHECKING:
    from pricing.explanation import Check

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
Words = dict[Language, dict[str, str]]

REASONS: Words = {
    "en": {
        "held": "the offer made earlier still stands",
        "no_consent": "the shopper has not agreed to personal prices",
        "consent_withdrawn": "the shopper has withdrawn consent to personal prices",
        "kill_switch": "personal prices are switched off for everybody",
        "purchased": "the shopper has bought the item, which ends the offer",
        "offers_full": "the shopper has as many open offers as one person may have",
        "held_out": "the shopper is among the few who pay list price for comparison while an experiment runs",
        "offer_ended": "the earlier offer is no longer allowed",
        "model_mismatch": "the policy was made for another model than the one in force, so its fallback prices",
        "list_price_policy": "the policy charges everybody the list price",
        "session_intent": "this session's interest in the item calls for it",
        "fixed_price": "the policy charges everybody the same share of the list price",
        "uniform": "the policy tries every allowed price alike",
        "demand": "it is the price that past purchases suggest for this visit",
        "value": "it is the price whose past outcomes were worth most in visits like this",
        "explored": "some offers try other allowed prices, to learn from them",
        "only_list_feasible": "the rails leave no other price",
    },
    "zh": {
        "held": "此前给出的优惠价仍然有效",
        "no_consent": "顾客未同意个性化定价",
        "consent_withdrawn": "顾客已撤回对个性化定价的同意",
        "kill_switch": "个性化定价目前已对所有顾客停用",
        "purchased": "顾客已购买该商品，优惠随之结束",
        "offers_full": "该顾客同时有效的优惠已达上限",
        "held_out": "实验期间，该顾客属于按标价付款的少数对照人群",
        "offer_ended": "此前的优惠价已不再符合规则",
        "model_mismatch": "该策略是为另一个模型制定的，因此改由备用策略定价",
        "list_price_policy": "当前策略对所有顾客一律按标价收取",
        "session_intent": "价格取决于本次访问中对该商品表现出的兴趣",
        "fixed_price": "当前策略对所有顾客按标价的同一比例收取",
        "uniform": "当前策略对每个允许的价格一视同仁地试用",
        "demand": "根据以往的购买情况，这是最适合本次访问的价格",
        "value": "在类似的访问中，这个价格以往带来的收益最高",
        "explored": "有一部分报价会试用其他允许的价格，以便从中学习",
        "only_list_feasible": "在各项限制之下没有其他价格可选",
    },
}
RAILS: Words = {
    "en": {
        "floor": "the floor price",
        "margin": "the least margin over cost",
        "map": "the minimum advertised price",
        "ceiling": "the ceiling price",
        "discount_only": "the rule that personal prices never exceed list",
        "band": "the band that all shoppers' prices share",
        "charm": "the rule on price endings",
        "step": "the limit on a change from the last price",
    },
    "zh": {
        "floor": "底价",
        "margin": "成本之上的最低毛利",
        "map": "最低广告价",
        "ceiling": "最高限价",
        "discount_only": "个性化价格不得高于标价的规则",
        "band": "全体顾客共用的价格区间",
        "charm": "价格尾数规则",
        "step": "相对上次价格的调价幅度上限",
    },
}
PRESCRIPTIONS: Words = {
    "en": {
        "dwell": "the promise that an offer's price stands until it ends",
        "consent": "the rule that nobody has a personal price without consent",
        "kill_switch": "the kill switch",
        "purchase": "the rule that a purchase ends the offer",
        "offers_max": "the limit on open offers of one shopper",
        "holdout": "the list-price holdout of the experiment",
    },
    "zh": {
        "dwell": "优惠有效期内价格不变的承诺",
        "consent": "未经同意不作个性化定价的规则",
        "kill_switch": "紧急停用开关",
        "purchase": "购买后优惠即告结束的规则",
        "offers_max": "每位顾客有效优惠数量的上限",
        "holdout": "实验中按标价付款的对照组",
    },
}
"""What binds besides the rails (contracts.decisions.Decision.binding_rule)."""
STATUSES: Words = {
    "en": {
        "drawn": "the policy chose it now",
        "held": "the price of an open offer again",
        "list": "the list price, without a choice",
    },
    "zh": {"drawn": "策略本次选定的价格", "held": "沿用仍然有效的优惠价", "list": "直接按标价，未作选择"},
}
UNPRICED: Words = {
    "en": {
        "consent": "a consent, which asks for no price",
        "erasure": "a shopper's request to be forgotten",
        "unknown_item": "the catalogue did not have the item",
        "refused_item": "the item's list price breaks one of its own bounds",
        "repeated": "the event had been applied before",
        "dead_letter": "the record could not be applied and went to the dead letters",
    },
    "zh": {
        "consent": "这是一条同意记录，不涉及价格",
        "erasure": "这是顾客要求删除其数据的请求",
        "unknown_item": "商品目录中没有该商品",
        "refused_item": "该商品的标价违反了它自身的价格限制",
        "repeated": "该事件此前已经处理过",
        "dead_letter": "该记录无法处理，已转入死信队列",
    },
}
"""Why a record led to no decision (contracts.decisions.Applied.outcome)."""
CHECKS: Words = {
    "en": {
        "on_lattice": "the price is on the lattice",
        "forced": "a forced price has propensity 1",
        "contributions": "contributions sum to the log-odds",
        "probabilities": "probabilities sum to 1",
        "arm": "the number drawn gives the price",
        "held_out": "a held-out price is the list price",
        "propensity": "the propensity is its probability",
        "number": "the number drawn is the decision's own",
        "again": "made again, it has the same bytes",
    },
    "zh": {
        "on_lattice": "价格在价格点之中",
        "forced": "别无选择的价格，倾向概率为 1",
        "contributions": "各项贡献之和等于对数几率",
        "probabilities": "概率之和为 1",
        "arm": "抽到的随机数对应所选价格",
        "held_out": "对照组按标价付款",
        "propensity": "倾向概率等于该价格的概率",
        "number": "随机数属于这一决策本身",
        "again": "重新计算得到逐字节相同的结果",
    },
}
"""What was verified of a decision (pricing.explanation.Check.what)."""
MISSING: Words = {
    "en": {
        "policy": "policy {name}",
        "catalogue": "catalogue version {name}",
        "learned": "what the policy had learned ({name})",
        "experiment": "experiment {name}",
        "release": "a release that knows {name}",
        "draw": "the draw {name}",
        "endings": "the price endings that policy {name} allows",
        "seed": "the seed of policy {name}",
    },
    "zh": {
        "policy": "策略 {name}",
        "catalogue": "目录版本 {name}",
        "learned": "策略当时的学习结果（{name}）",
        "experiment": "实验 {name}",
        "release": "认识 {name} 的软件版本",
        "draw": "原报价 {name}",
        "endings": "策略 {name} 允许的价格尾数",
        "seed": "策略 {name} 的随机种子",
    },
}
"""What was not at hand to verify something (pricing.explanation.Check.missing)."""
FEATURES: Words = {
    "en": {
        "base": "base",
        "vector": "user vector",
        "preference": "model's propensity to buy",
        "intent": "intent of this session",
        "price": "list price (logarithm)",
        "least_response": "least response to a discount",
    },
    "zh": {
        "base": "基准",
        "vector": "用户向量",
        "preference": "模型给出的购买倾向",
        "intent": "本次访问的意向",
        "price": "标价（对数）",
        "least_response": "对优惠的最低反应",
    },
}
"""The features of policies that learn (pricing.contexts.names_of), and the part that is none."""
_SENTENCES: Words = {
    "en": {
        "list": "{amount}, the list price",
        "below": "{amount}, {off} % below the list price of {listed}",
        "above": "{amount}, {off} % above the list price of {listed}",
        "because": "{head}: {causes}.",
        "limited": "{head}: {causes}, as far as {limits} allows.",
        "no_reason": "no reason is on record",
        "untaught": "nothing has been learned yet, so the policy goes by the assumption it starts from",
        "and": ", and ",
        "between": " and ",
        "within": "{rail}: {low} to {high}",
        "only": "{rail}: {low} only",
        "at_least": "{rail}: at least {low}",
        "at_most": "{rail}: at most {high}",
        "removed": "{what}; rules out {removed} of {points} points of the lattice",
        "no_price": "No price: {why}.",
        "of_draw": "the draw: {what}",
        "apart": "{what} ({apart:.1e} apart)",
        "missing": "{what} (not at hand: {names})",
        "comma": ", ",
    },
    "zh": {
        "list": "{amount}，即标价",
        "below": "{amount}，比标价 {listed} 低 {off}%",
        "above": "{amount}，比标价 {listed} 高 {off}%",
        "because": "{head}：{causes}。",
        "limited": "{head}：{causes}，但受{limits}限制。",
        "no_reason": "没有记录原因",
        "untaught": "策略尚未学到任何东西，因此按其初始假设定价",
        "and": "，并且",
        "between": "和",
        "within": "{rail}：{low} 至 {high}",
        "only": "{rail}：只能是 {low}",
        "at_least": "{rail}：不低于 {low}",
        "at_most": "{rail}：不高于 {high}",
        "removed": "{what}；在 {points} 个价格点中排除了 {removed} 个",
        "no_price": "没有价格：{why}。",
        "of_draw": "原报价：{what}",
        "apart": "{what}（相差 {apart:.1e}）",
        "missing": "{what}（缺少：{names}）",
        "comma": "、",
    },
}


def money(minor: int, currency: str) -> str:
    """Return an amount for people: 12999, "USD" -> "129.99 USD"."""
    decimals = minor_digits(currency)
    if not decimals:
        return f"{minor} {currency}"
    whole, rest = divmod(minor, 10**decimals)
    return f"{whole}.{rest:0{decimals}d} {currency}"


def explain(price: PriceUpdate | Decision, language: Language = "en", *, untaught: bool = False) -> str:
    """Return one sentence that says what the price is and why.

    Args:
        price: what was published or decided.
        language: of the sentence.
        untaught: the policy had learned nothing when it chose (pricing.explanation): no past outcome speaks for the price.
    """
    say = _SENTENCES[language]
    amount, listed = money(price.price, price.currency), money(price.list_price, price.currency)
    # half up, of an exact ratio: no float comes near money
    off = (abs(price.list_price - price.price) * 1000 + price.list_price // 2) // price.list_price
    side = "list" if price.price == price.list_price else "below" if price.price < price.list_price else "above"
    head = say[side].format(amount=amount, listed=listed, off=f"{off // 10}.{off % 10}")
    words, rails = REASONS[language], RAILS[language]
    if untaught:
        words = words | dict.fromkeys(LEARNED_AIMS, say["untaught"])
    causes = [words.get(code, code) for code in price.reasons if not code.startswith(RAIL)]
    limits = [rails.get(rail, rail) for code in price.reasons if (rail := code.removeprefix(RAIL)) != code]
    why = say["and"].join(causes) or say["no_reason"]
    template = say["limited" if limits else "because"]
    return template.format(head=head, causes=why, limits=say["between"].join(limits))


def unpriced(outcome: str, language: Language = "en") -> str:
    """Return one sentence that says why there is no price; `outcome` as in contracts.decisions.Applied."""
    kind, _, code = outcome.partition(":")
    why = UNPRICED[language].get(kind, kind)
    return _SENTENCES[language]["no_price"].format(why=f"{why} ({code})" if code else why)


def rule_words(rule: str, language: Language = "en") -> str:
    """Return the words of a rail or of what prescribes a price."""
    return RAILS[language].get(rule) or PRESCRIPTIONS[language].get(rule, rule)


def check_words(check: Check, language: Language = "en") -> str:
    """Return the words of a check: what was verified, how far apart it is, what was missing for it."""
    say, code = _SENTENCES[language], check.what.removeprefix("draw:")
    words = CHECKS[language].get(code, code)
    if code != check.what:
        words = say["of_draw"].format(what=words)
    if check.apart is not None:
        return say["apart"].format(what=words, apart=check.apart)
    if check.missing:
        names = [MISSING[language].get(kind, f"{kind} {{name}}").format(name=name) for kind, name in check.missing]
        return say["missing"].format(what=words, names=say["comma"].join(names))
    return words


def feature_words(name: str, language: Language = "en") -> str:
    """Return the words of a feature: those of `vector` and its number for `vector_3`."""
    kind, _, number = name.rpartition("_")
    if number.isdecimal():
        return f"{FEATURES[language].get(kind, kind)} {number}"
    return FEATURES[language].get(name, name)


def step_line(step: TrailStep, currency: str, points: int, language: Language = "en") -> str:
    """Return one step of a trail in words.

    Args:
        step: of a decision's trail.
        currency: of its bounds.
        points: of the full lattice.
        language: of the words.
    """
    say, rail = _SENTENCES[language], rule_words(step.rail, language)
    low, high = ("" if bound is None else money(bound, currency) for bound in (step.low, step.high))
    kind = (
        "only"
        if low and low == high
        else "within"
        if low and high
        else "at_least"
        if low
        else "at_most"
        if high
        else ""
    )
    what = say[kind].format(rail=rail, low=low, high=high) if kind else rail
    return say["removed"].format(what=what, removed=step.removed, points=points)
