-- Lets a call in that all of its budgets have room for, and says how they stand.
--
-- A budget is a hash for each slot of its window. `kind` is what all sidecars have spent. Of it `kind let-in id`
-- is what one of them was let in for here, and `kind rest id` what it has spent beside or less; see `tell.lua`.
--
-- KEYS: the slots of each budget, the present one first.
-- ARGV: id, budgets; for each budget: slots, when the present one is gone (Unix milliseconds), kinds; for each
-- kind: its word, the limit or -1, what this call holds, and what of that must fit.
-- Returns 0, or which budget has no room; then for each slot of each budget and each of its kinds what all
-- have spent, and what this sidecar was let in for and has told beside.
local id, arg, key, refused = ARGV[1], 3, 1, 0
local budgets = {}
local function number(text) return tonumber(text or '0') end
local function write(of) return string.format('%.0f', of) end

for b = 1, tonumber(ARGV[2]) do
  local budget = { key = KEYS[key], gone = ARGV[arg + 1], kinds = {}, slots = {} }
  local slots, kinds, fields = tonumber(ARGV[arg]), tonumber(ARGV[arg + 2]), {}
  arg = arg + 3
  for n = 1, kinds do
    local word = ARGV[arg]
    local limit, holds, wants = tonumber(ARGV[arg + 1]), ARGV[arg + 2], tonumber(ARGV[arg + 3])
    budget.kinds[n] = { word = word, limit = limit, holds = holds, wants = wants }
    for _, field in ipairs({ word, word .. ' let-in ' .. id, word .. ' rest ' .. id }) do
      fields[#fields + 1] = field
    end
    arg = arg + 4
  end
  for s = 1, slots do
    budget.slots[s] = redis.call('HMGET', KEYS[key + s - 1], unpack(fields))
  end
  key = key + slots
  for n, kind in ipairs(budget.kinds) do
    local spent = 0
    for s = 1, slots do spent = spent + number(budget.slots[s][3 * n - 2]) end
    if kind.limit >= 0 and spent + kind.wants > kind.limit and refused == 0 then refused = b end
  end
  budgets[b] = budget
end

local answer = { tostring(refused) }
for _, budget in ipairs(budgets) do
  if refused == 0 then
    local present = budget.slots[1]
    for n, kind in ipairs(budget.kinds) do
      present[3 * n - 2] = redis.call('HINCRBY', budget.key, kind.word, kind.holds)
      present[3 * n - 1] = redis.call('HINCRBY', budget.key, kind.word .. ' let-in ' .. id, kind.holds)
    end
    redis.call('PEXPIREAT', budget.key, budget.gone)
  end
  for _, slot in ipairs(budget.slots) do
    for n = 1, 3 * #budget.kinds do answer[#answer + 1] = write(number(slot[n])) end
  end
end
return answer
