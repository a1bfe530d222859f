"""Holds a small list of English and Chinese words that can replace each other in most sentences."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from cloister.data.augment.synonyms import Synonyms, synonyms_of

# Written for this purpose: everyday words of reviews, questions and notes, one group per line.
WORDS = """\
good, fine
great, wonderful
bad, poor
terrible, awful
big, large
small, little
fast, quick
slow, sluggish
happy, glad
sad, unhappy
angry, furious
funny, amusing
boring, dull
smart, clever
strange, odd
easy, simple
hard, difficult
begin, start
end, finish
buy, purchase
help, assist
show, display
need, require
want, wish
think, believe
say, state
get, obtain
make, create
use, employ
try, attempt
fix, repair
movie, film
movies, films
story, tale
job, task
car, vehicle
phone, telephone
money, cash
problem, issue
problems, issues
mistake, error
answer, reply
price, cost
company, firm
doctor, physician
illness, disease
pain, ache
severe, serious
mild, slight
often, frequently
quickly, rapidly
really, truly
almost, nearly
maybe, perhaps
also, too
very, extremely
entire, whole
rise, increase
fall, decrease
profit, earnings
好, 不错
很好, 非常好
好吃, 美味
难吃, 难以下咽
快, 迅速
慢, 缓慢
便宜, 实惠
贵, 昂贵
漂亮, 美观
喜欢, 喜爱
满意, 称心
高兴, 开心
难过, 伤心
问题, 毛病
非常, 十分
特别, 格外
马上, 立刻
经常, 常常
以前, 之前
现在, 目前
价格, 价钱
商品, 产品
质量, 品质
电话, 手机
医生, 大夫
疼, 痛
头疼, 头痛
治疗, 医治
需要, 须要
帮助, 帮忙
公司, 企业
上涨, 走高
下跌, 走低
建议, 提议
"""


@cache
def own_synonyms() -> Synonyms:
    """Returns the list, ready to be looked up."""
    return synonyms_of(WORDS.splitlines(), Path(__file__))
