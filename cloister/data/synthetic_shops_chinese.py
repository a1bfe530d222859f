"""Generates the shops' catalogue in Chinese, with the same ids, so that it fits the same customers.

A study on it differs from one on `synthetic:shops` only in the language. Two things of a pursuit
share no two neighbouring characters, so common characters predict little.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from cloister.data.synthetic_shops import STYLES, item_id
from cloister.seeds import child_seed

# Things by pursuit, in the order of `synthetic_shops.PURSUITS`.
THINGS: Mapping[str, tuple[str, ...]] = {
    "camping": ("双人帐篷", "鹅绒睡袋", "便携气炉", "头灯", "滤水器", "折叠吊床"),
    "baby": ("婴儿床", "尿布台", "暖奶器", "手推车", "楼梯护栏", "第一本图画书"),
    "baking": ("厨师机", "吐司模具", "发酵藤篮", "电子秤", "裱花嘴", "蛋糕转台"),
    "running": ("缓震跑鞋", "速干上衣", "心率带", "越野水袋包", "泡沫轴", "奖牌挂架"),
    "painting": ("固体水彩", "貂毛画笔", "冷压棉浆纸", "桌面架子", "留白胶", "实木相框"),
    "aquarium": ("六十升玻璃缸", "外置过滤桶", "加热棒", "细沙", "苔藓球", "薄片饲料"),
    "office": ("升降书桌", "网布转椅", "曲面显示屏", "机械键盘", "降噪耳麦", "理线槽"),
    "garden": ("育苗盘", "营养土", "小铲子", "洒水壶", "番茄支架", "修枝剪刀"),
    "guitar": ("民谣吉他", "夹式调音表", "变调夹", "和弦谱集", "加厚琴包", "循环效果踏板"),
    "cycling": ("砾石公路车", "透气头盔", "立式打气筒", "补胎工具", "驮包", "链条清洗剂"),
    "coffee": ("磨豆机", "细口手冲壶", "滤杯", "锥形纸芯", "打奶泡仪", "意式浓缩锅"),
    "sewing": ("锁边机", "裁布大剪", "连衣裙纸样", "棉线卷", "拆线刀", "立体人台"),
}
# Wordings by style, as `synthetic_shops.STYLES` has them.
WORDINGS: Mapping[str, tuple[str, ...]] = {
    "cheap": ("实惠", "平价", "特价", "经济型"),
    "expert": ("专业级", "竞赛用", "高手款", "职业"),
    "small": ("儿童", "少年款", "幼童用", "宝宝适用"),
    "green": ("再生材料", "有机", "环保", "零碳"),
    "luxury": ("奢华", "高端", "纯手工", "典藏"),
    "old": ("复古", "怀旧", "五十年代风格", "老式"),
}
_ENDINGS = (
    *("明天送达", "质保两年", "本店新品", "仅剩最后几件"),
    *("蓝色", "灰色", "可礼品包装", "葡萄牙制造"),
)
_FILLS = ("", "", "全套", "轻便", "结实")


def chinese_shop_items() -> list[tuple[str, str]]:
    """Returns ids and texts of 432 items, always the same, with the ids of `shop_items`."""
    items = []
    for pursuit, things in THINGS.items():
        for place, thing in enumerate(things):
            for style in STYLES:
                rng = random.Random(child_seed(0, "item in Chinese", pursuit, place, style))
                style_words, fill = rng.choice(WORDINGS[style]), rng.choice(_FILLS)
                text = f"{style_words}{fill}{thing}，{rng.choice(_ENDINGS)}"
                items.append((item_id(pursuit, place, style), text))
    return items
