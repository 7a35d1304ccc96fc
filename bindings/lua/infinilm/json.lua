-- As much of JSON as configs need: objects, arrays, strings, numbers, booleans; null is nil.
local engine = require "infinilm.engine"
engine.internal()

local json = {}

local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function encode_string(text)
  return '"' .. text:gsub('[%c"\\]', function(c)
    return ESCAPES[c] or ("\\u%04x"):format(c:byte())
  end) .. '"'
end

local function encode_number(number)
  if math.type(number) == "integer" then return ("%d"):format(number) end
  if number ~= number or number == math.huge or number == -math.huge then
    engine.fail("ValueError", "JSON has no number " .. tostring(number))
  end
  return ("%.17g"):format(number)
end

local function encode_table(value)
  local parts = {}
  if #value > 0 then
    for i, item in ipairs(value) do parts[i] = json.encode(item) end
    return "[" .. table.concat(parts, ",") .. "]"
  end
  for key, item in pairs(value) do
    if type(key) ~= "string" then
      engine.fail("TypeError", "a key of a JSON object must be a string, not " .. type(key))
    end
    parts[#parts + 1] = encode_string(key) .. ":" .. json.encode(item)
  end
  return "{" .. table.concat(parts, ",") .. "}"
end

--- The text of a value. A table with a first element is an array, any other an object.
function json.encode(value)
  local kind = type(value)
  if kind == "nil" then return "null" end
  if kind == "boolean" then return tostring(value) end
  if kind == "number" then return encode_number(value) end
  if kind == "string" then return encode_string(value) end
  if kind == "table" then return encode_table(value) end
  engine.fail("TypeError", "a " .. kind .. " has no place in JSON")
end

local UNESCAPES = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }
local LITERALS = { ["true"] = true, ["false"] = false }

local function skip(text, at) return text:find("%S", at) or #text + 1 end

local function malformed(at) engine.fail("ValueError", "malformed JSON at byte " .. at) end

local function decode_string(text, at)
  local stop = at
  repeat
    stop = text:find('["\\]', stop + 1) or malformed(at)
    local escape = text:byte(stop) == 92
    if escape then stop = stop + 1 end
  until not escape
  local inner = text:sub(at + 1, stop - 1):gsub("\\(.)(%x?%x?%x?%x?)", function(c, digits)
    if c == "u" then return utf8.char(tonumber(digits, 16)) end
    return (UNESCAPES[c] or c) .. digits
  end)
  return inner, stop + 1
end

local decode_value

local function decode_list(text, at, close, item)
  at = skip(text, at + 1)
  if text:sub(at, at) == close then return at + 1 end
  while true do
    at = skip(text, item(at))
    local c = text:sub(at, at)
    if c == close then return at + 1 end
    if c ~= "," then malformed(at) end
    at = skip(text, at + 1)
  end
end

local function decode_object(text, at)
  local result = {}
  at = decode_list(text, at, "}", function(i)
    local key, value
    if text:sub(i, i) ~= '"' then malformed(i) end
    key, i = decode_string(text, i)
    i = skip(text, i)
    if text:sub(i, i) ~= ":" then malformed(i) end
    value, i = decode_value(text, skip(text, i + 1))
    result[key] = value
    return i
  end)
  return result, at
end

local function decode_array(text, at)
  local result, n = {}, 0
  at = decode_list(text, at, "]", function(i)
    n = n + 1
    result[n], i = decode_value(text, i)
    return i
  end)
  return result, at
end

function decode_value(text, at)
  local c = text:sub(at, at)
  if c == "{" then return decode_object(text, at) end
  if c == "[" then return decode_array(text, at) end
  if c == '"' then return decode_string(text, at) end
  local word = text:match("^[%w.+-]+", at) or malformed(at)
  if word == "null" then return nil, at + 4 end
  local value = LITERALS[word]
  if value == nil then value = math.tointeger(word) or tonumber(word) or malformed(at) end
  return value, at + #word
end

--- The value of a text. ValueError where it is malformed.
function json.decode(text)
  local value, at = decode_value(text, skip(text, 1))
  if skip(text, at) <= #text then malformed(at) end
  return value
end

return json
